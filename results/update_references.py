"""Copy the measured anchors (results/anchors) into the package's reference scores.

python results/update_references.py
"""

import json
from pathlib import Path

import pandas as pd

from mtbench.records import write_json

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "mtbench" / "scoring" / "data"


def entries(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float | int]]]:
    """By task and agent, the entry that a measured anchor becomes."""
    found: dict[str, dict[str, dict[str, float | int]]] = {}
    for row in table.itertuples():
        entry = {"mean": float(row.mean), "sem": float(row.sem), "rollouts": int(row.rollouts)}
        found.setdefault(str(row.task), {})[str(row.agent)] = entry
    return found


def main() -> None:
    """Every suite that has been measured."""
    for path in sorted((HERE / "anchors").glob("*.csv")):
        target = PACKAGE / path.with_suffix(".json").name
        data = json.loads(target.read_text())
        for task, measured in entries(pd.read_csv(path)).items():
            data["tasks"].setdefault(task, {}).update(measured)
        write_json(target, data)


if __name__ == "__main__":
    main()
