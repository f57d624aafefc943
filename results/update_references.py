"""Copy the measured anchors into the package's reference scores.

    python results/update_references.py

POPGym's and BabyAI's anchors are in results/anchors; Meta-World's are the means of its committed runs.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from mtbench.records import read_run, write_json
from mtbench.registration import TABLE
from mtbench.suite import load_suite

HERE = Path(__file__).parent
ENUMERATED = ("metaworld-ml45", "metaworld-ml10")

Entry = tuple[str, str, dict[str, float | int]]


def measured(suite: str) -> Iterator[Entry]:
    """Task, agent and entry of each anchor in results/anchors."""
    for row in pd.read_csv(HERE / "anchors" / f"{suite}.csv").itertuples():
        entry = {"mean": float(row.mean), "sem": float(row.sem), "rollouts": int(row.rollouts)}
        yield str(row.task), str(row.agent), entry


def played(suite: str) -> Iterator[Entry]:
    """Task, agent and entry of each anchor, from committed runs that play every variant of their split.

    All goals are played, so the standard error is that of the attempts at each goal, not that between goals.
    """
    env_id = next(row.id for row in TABLE if row.suite.name == suite)
    for path in sorted((HERE / env_id).glob("*/*/manifest.json")):
        run = read_run(path.parent)
        for task, rows in run.episodes.groupby("task"):
            goals = rows.groupby("variant")["return"]
            within = goals.var(ddof=1) / goals.size()
            entry = {
                "mean": round(float(rows["return"].mean()), 4),
                "sem": round(math.sqrt(within.sum()) / len(goals), 4),
                "rollouts": len(rows) // int(run.manifest["k"]),
            }
            yield str(task), run.manifest["agent"], entry


def file_of(suite: str) -> Path:
    """The suite's file of references, in this checkout."""
    package, file = load_suite(suite).references.split(":")
    return HERE.parent.joinpath(*package.split("."), file)


def main() -> None:
    """Write the reference file of every suite whose anchors are measured here."""
    for suite in (*(path.stem for path in sorted((HERE / "anchors").glob("*.csv"))), *ENUMERATED):
        target = file_of(suite)
        data = json.loads(target.read_text())
        for task, agent, entry in played(suite) if suite in ENUMERATED else measured(suite):
            data["tasks"].setdefault(task, {})[agent] = entry
        write_json(target, data)


if __name__ == "__main__":
    main()
