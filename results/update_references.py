"""Copy the measured anchors into the package's reference scores.

    python results/update_references.py

results/anchors/measure.py measures them.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from mtbench.records import write_json
from mtbench.suite import load_suite

HERE = Path(__file__).parent

Entry = tuple[str, str, dict[str, float | int]]


def measured(suite: str) -> Iterator[Entry]:
    """Task, agent and entry of each anchor in results/anchors."""
    for row in pd.read_csv(HERE / "anchors" / f"{suite}.csv").itertuples():
        entry = {"mean": float(row.mean), "sem": float(row.sem), "rollouts": int(row.rollouts)}
        yield str(row.task), str(row.agent), entry


def file_of(suite: str) -> Path:
    """The suite's file of references, in this checkout."""
    package, file = load_suite(suite).references.split(":")
    return HERE.parent.joinpath(*package.split("."), file)


def main() -> None:
    """Write the reference file of every suite whose anchors are measured here."""
    for suite in (path.stem for path in sorted((HERE / "anchors").glob("*.csv"))):
        target = file_of(suite)
        data = json.loads(target.read_text())
        for task, agent, entry in measured(suite):
            data["tasks"].setdefault(task, {})[agent] = entry
        write_json(target, data)


if __name__ == "__main__":
    main()
