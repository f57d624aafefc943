"""Measure the anchors of the `oracle` scales: what random play and the oracle earn on every task.

    python results/anchors/measure.py popgym babyai metaworld-ml45 metaworld-ml10   # writes SUITE.csv here
    python results/update_references.py                                             # copies them into the package

A task is played until the standard error of both anchors is below 0.0045 of its scale (oracle minus random), on the
first evaluation cases of its split, or until `--most` rollouts. Where a split has few variants (Meta-World's 50 goals),
all of them are played equally often, so that the error is that of the policy's and the game's own chance. Finished
tasks are not played again: the same command resumes.
"""

import argparse
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

from mtbench.cases import MOST_ENUMERATED, evaluation_cases
from mtbench.playing import make_rows, play
from mtbench.policy import load_policy
from mtbench.records import write_atomically
from mtbench.registration import TABLE
from mtbench.scoring.scored import scored
from mtbench.suite import Suite, load_suite

HERE = Path(__file__).parent
WANTED = 0.0045  # standard error of an anchor, in units of the scale
COLUMNS = ["task", "split", "agent", "mean", "sem", "rollouts", "variants", "sem_of_scale"]


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
        self.size = len(suite.split(self.split).evaluation)
        self.enumerated = self.size <= MOST_ENUMERATED
        self.values = np.empty(0)
        self._variants = np.empty(0, dtype=np.int64)
        self.repeatable = True  # so far, all attempts at a variant have earned the same

    def extend(self, rollouts: int) -> None:
        """Play on until there are this many rollouts."""
        cases = evaluation_cases(self._suite, self.split, [self._task], rollouts, self._k)
        cases = sorted(cases, key=lambda case: case.rollout)[len(self.values) :]
        policy = load_policy(self._agent)
        arguments = {"split": self.split, "tasks": [self._task]}
        rows = make_rows(self._env_id, arguments, min(len(cases), 64), self._agent == "oracle")
        seed = np.random.SeedSequence([zlib.crc32(self._task.encode()), len(self.values)]).generate_state(1)[0]
        new = np.empty(len(cases))
        for attempts in play(rows, policy, cases, int(seed)):
            returns = np.array([attempt["return"] for attempt in attempts])
            new[attempts[0]["rollout"] - len(self.values)] = scored(returns, self._objective)
            self.repeatable &= bool(np.ptp(returns) == 0)
        rows.close()
        self.values = np.append(self.values, new)
        self._variants = np.append(self._variants, [case.variants[-1] for case in cases])

    @property
    def mean(self) -> float:
        """The anchor."""
        return float(self.values.mean())

    @property
    def sem(self) -> float:
        """Its standard error; where all variants are played equally often, that within variants."""
        if not self.enumerated:
            return float(self.values.std(ddof=1) / math.sqrt(len(self.values)))
        if self.repeatable:
            return 0.0
        groups = [self.values[self._variants == variant] for variant in np.unique(self._variants)]
        within = np.array([group.var(ddof=1) / len(group) for group in groups])
        return float(math.sqrt(within.sum()) / len(groups))

    def row(self, scale: float) -> dict[str, object]:
        """A line of the table."""
        return {
            **{"task": self._task, "split": self.split, "agent": self._agent, "mean": round(self.mean, 5)},
            **{"sem": round(self.sem, 6), "rollouts": len(self.values), "variants": len(np.unique(self._variants))},
            "sem_of_scale": round(self.sem / scale, 5),
        }


def measure(name: str, task: str, least: int, most: int) -> list[dict[str, object]]:
    """Both anchors of a task."""
    suite = load_suite(name)
    samples = [Sample(suite, task, agent) for agent in ("random", "oracle")]
    unit = samples[0].size if samples[0].enumerated else least
    for sample in samples:
        sample.extend(unit)
        if sample.enumerated and not sample.repeatable:
            sample.extend(2 * unit)  # a variance within variants takes two of each
    for _ in range(20):
        scale = samples[1].mean - samples[0].mean
        behind = [s for s in samples if s.sem > WANTED * scale and len(s.values) + unit <= most]
        if not behind:
            break
        for sample in behind:
            needed = len(sample.values) * (sample.sem / (WANTED * scale)) ** 2 * 1.05
            goal = min(needed, 4 * len(sample.values), most)
            sample.extend(max(math.ceil(goal / unit) * unit, len(sample.values) + unit))
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
