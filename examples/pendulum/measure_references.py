"""Measure what a score of 0 and of 1 mean: ``python -m examples.pendulum.measure_references`` writes references.json.

0 is the mean return of an attempt under random torques, 1 that of the oracle, both on the test split.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import examples.pendulum
import mtbench.evaluation
from mtbench.records import write_json

ROLLOUTS = 500


def main() -> None:
    """Write the file."""
    tasks: dict[str, Any] = {task: {} for task in examples.pendulum.TASKS}
    for agent in ("random", "oracle"):
        with tempfile.TemporaryDirectory() as folder:
            run = mtbench.evaluation.evaluate(
                "MetaPendulum-v0", agent, Path(folder) / "run", rollouts_per_task=ROLLOUTS, num_envs=256
            )
        for task, rows in run.episodes.groupby("task"):
            returns = rows.groupby("rollout")["return"].mean()
            tasks[str(task)][agent] = {
                "mean": round(float(returns.mean()), 4),
                "sem": round(float(returns.std()) / math.sqrt(len(returns)), 4),
                "rollouts": len(returns),
            }
    content = {
        "scales": {
            "oracle": {
                "description": "0 is a random torque, 1 the controller of oracle.py, which reads the velocity.",
                "low": ["random"],
                "high": ["oracle"],
            }
        },
        "sources": {
            "random": f"random torques, {ROLLOUTS} rollouts of the test split, by measure_references.py",
            "oracle": f"the controller of oracle.py, {ROLLOUTS} rollouts of the test split, by measure_references.py",
        },
        "tasks": tasks,
    }
    write_json(Path(__file__).with_name("references.json"), content)


if __name__ == "__main__":
    main()
