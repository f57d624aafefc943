"""Measure the anchors of the `oracle` scales: what random play and the oracle earn on every task.

    python results/anchors/measure.py popgym babyai      # writes SUITE.csv here
    python results/update_references.py                  # copies them into the package

A task is played until the standard error of both anchors is below 0.0045 of its scale (oracle minus random), on the
first evaluation cases of its split, or until `--most` rollouts. Finished tasks are not played again: the same command
resumes. Meta-World's anchors come from its committed runs, which play all of its 50 goals.
"""

import argparse
import itertools
import math
import os
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from rich import print
from rich.progress import track

from mtbench.cases import evaluation_cases
from mtbench.playing import make_rows, play
from mtbench.policy import load_policy
from mtbench.records import write_atomically
from mtbench.registration import TABLE
from mtbench.scoring.scored import scored
from mtbench.suite import Suite, load_suite

HERE = Path(__file__).parent
WANTED = 0.0045  # standard error of an anchor, in units of the scale
COLUMNS = ["task", "split", "agent", "mean", "sem", "rollouts", "sem_of_scale"]


def environment(suite: str) -> tuple[str, int, str]:
    """The ID, k and objective with which a suite is registered first."""
    row = next(row for row in TABLE if row.kwargs["suite"] == suite)
    return row.id, int(row.kwargs["k"]), str(row.kwargs["objective"])


def split_of(suite: Suite, task: str) -> str:
    """Where a task is evaluated: the test split where it is one of its tasks, else the train split."""
    return "test" if task in suite.splits["test"].tasks else "train"


class Sample:
    """Scored returns of one agent on one task, as many as were asked for."""

    def __init__(self, suite: Suite, task: str, agent: str) -> None:
        self._suite, self._task, self._agent = suite, task, agent
        self._env_id, self._k, self._objective = environment(suite.name)
        self.split = split_of(suite, task)
        self.values = np.empty(0)

    def extend(self, rollouts: int) -> None:
        """Play on until there are this many rollouts."""
        cases = evaluation_cases(self._suite, self.split, [self._task], rollouts, self._k)
        cases = sorted(cases, key=lambda case: case.rollout)[len(self.values) :]
        policy = load_policy(self._agent)
        arguments = {"split": self.split, "tasks": [self._task]}
        # One worker: the pool's processes fill the cores.
        rows = make_rows(self._env_id, arguments, min(len(cases), 64), self._agent == "oracle", num_workers=1)
        seed = np.random.SeedSequence([zlib.crc32(self._task.encode()), len(self.values)]).generate_state(1)[0]
        new = np.empty(len(cases))
        for case, statistics in itertools.chain.from_iterable(play(rows, policy, cases, int(seed))):
            new[case.rollout - len(self.values)] = scored(statistics["returns"], self._objective)
        rows.close()
        self.values = np.append(self.values, new)

    @property
    def mean(self) -> float:
        """The anchor."""
        return float(self.values.mean())

    @property
    def sem(self) -> float:
        """Its standard error."""
        return float(self.values.std(ddof=1) / math.sqrt(len(self.values)))

    def row(self, scale: float) -> dict[str, object]:
        """A line of the table."""
        return {
            **{"task": self._task, "split": self.split, "agent": self._agent, "mean": round(self.mean, 5)},
            **{"sem": round(self.sem, 6), "rollouts": len(self.values)},
            "sem_of_scale": round(self.sem / scale, 5),
        }


def measure(name: str, task: str, least: int, most: int) -> list[dict[str, object]]:
    """Both anchors of a task."""
    suite = load_suite(name)
    samples = [Sample(suite, task, agent) for agent in ("random", "oracle")]
    for sample in samples:
        sample.extend(least)
    for _ in range(20):
        scale = samples[1].mean - samples[0].mean
        behind = [s for s in samples if s.sem > WANTED * scale and len(s.values) < most]
        if not behind:
            break
        for sample in behind:
            needed = len(sample.values) * (sample.sem / (WANTED * scale)) ** 2 * 1.05
            goal = min(needed, 4 * len(sample.values), most)
            sample.extend(max(math.ceil(goal), len(sample.values) + 1))
    return [sample.row(samples[1].mean - samples[0].mean) for sample in samples]


def main() -> None:
    """Measure the suites named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--least", type=int, default=400, help="rollouts of every task")
    parser.add_argument("--most", type=int, default=30_000, help="rollouts of a task at most")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    for name in arguments.suites:
        path, began = HERE / f"{name}.csv", time.monotonic()
        table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
        missing = [task for task in load_suite(name).tasks if task not in set(table["task"])]
        with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
            jobs = [pool.submit(measure, name, task, arguments.least, arguments.most) for task in missing]
            for job in track(as_completed(jobs), total=len(jobs), description=name):
                added = pd.DataFrame(job.result(), columns=COLUMNS)
                table = pd.concat([table, added], ignore_index=True) if len(table) else added
                order = {task: i for i, task in enumerate(load_suite(name).tasks)}
                table = table.sort_values("task", key=lambda tasks, order=order: tasks.map(order), kind="stable")
                write_atomically(path, lambda temporary, table=table: table.to_csv(temporary, index=False))
        worst = table.loc[table["sem_of_scale"].idxmax()]
        print(
            f"{name}: {len(missing)} tasks in {time.monotonic() - began:.0f} s; largest standard error "
            f"{worst['sem_of_scale']:.4f} of the scale ({worst['task']}, {worst['agent']})"
        )


if __name__ == "__main__":
    main()
