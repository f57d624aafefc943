"""Measure the anchors of the `oracle` scales: what random play and the oracle earn on every task.

    python results/anchors/measure.py popgym babyai      # writes SUITE.csv here
    python results/update_references.py                  # copies them into the package

A suite's file comes here when all of its tasks are measured; until then it is in ``unfinished``.

A task is played until the standard error of both anchors is below 0.0045 of its scale (oracle minus random), on the
first evaluation cases of its split, or until `--most` rollouts. The same command resumes, and a larger `--most` goes
on: rollouts are kept in runs/anchors.

Meta-World has 50 goals for each task, and an anchor is the mean over exactly these. So its rollouts are multiples of
50, the standard error is that of the attempts at each goal, not between goals, and the first 50 are the committed runs.
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
import numpy.typing as npt
import pandas as pd
from rich import print
from rich.progress import track

from mtbench.cases import MOST_ENUMERATED, case_variants, evaluation_cases
from mtbench.playing import make_rows, play
from mtbench.policy import load_policy
from mtbench.records import read_run, write_atomically
from mtbench.registration import TABLE
from mtbench.scoring.scored import scored
from mtbench.suite import Suite, load_suite

HERE = Path(__file__).parent
UNFINISHED = Path("runs/anchors")
WANTED = 0.0045  # standard error of an anchor, in units of the scale
PROMISED = 0.005  # at most, on the page
COLUMNS = ["task", "split", "agent", "mean", "sem", "rollouts", "sem_of_scale"]
BLOCK = 1000  # rollouts after which an unfinished task is saved


def environment(suite: str) -> tuple[str, int, str]:
    """The ID, k and objective with which a suite is registered first."""
    row = next(row for row in TABLE if row.kwargs["suite"] == suite)
    return row.id, int(row.kwargs["k"]), str(row.kwargs["objective"])


def split_of(suite: Suite, task: str) -> str:
    """Where a task is evaluated: the test split where it is one of its tasks, else the train split."""
    return "test" if task in suite.splits["test"].tasks else "train"


class Sample:
    """Returns of one agent on one task, shape (rollouts, k), as many as were asked for."""

    def __init__(self, suite: Suite, task: str, agent: str) -> None:
        self._suite, self._task, self._agent = suite, task, agent
        self._env_id, self._k, self._objective = environment(suite.name)
        self.split = split_of(suite, task)
        variants = suite.splits[self.split].evaluation
        self._goals = len(variants) if len(variants) <= MOST_ENUMERATED else 0
        self._saved = UNFINISHED / suite.name / f"{task}.{agent}.npy"
        if self._saved.exists():
            self.returns: npt.NDArray[np.float64] = np.load(self._saved, allow_pickle=False)
        elif self._goals:
            self.returns = self._committed()
        else:
            self.returns = np.empty((0, self._k))

    def __len__(self) -> int:
        return len(self.returns)

    def _committed(self) -> npt.NDArray[np.float64]:
        run = read_run(HERE.parent / self._env_id / self.split / self._agent)
        own = run.episodes[run.episodes["task"] == self._task]
        returns = own.pivot(index="rollout", columns="attempt", values="return").sort_index().to_numpy(np.float64)
        assert returns.shape == (self._goals, self._k)
        return np.asarray(returns)

    def extend(self, rollouts: int) -> None:
        """Play on until there are at least this many rollouts."""
        if self._goals:
            rollouts = math.ceil(rollouts / self._goals) * self._goals
        while len(self) < rollouts:
            self._play(min(rollouts, len(self) + BLOCK))
            self._saved.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._saved, self._save)

    def _save(self, temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, self.returns)

    def _play(self, rollouts: int) -> None:
        cases = evaluation_cases(self._suite, self.split, [self._task], rollouts, self._k)
        cases = sorted(cases, key=lambda case: case.rollout)[len(self) :]
        policy = load_policy(self._agent)
        arguments = {"split": self.split, "tasks": [self._task]}
        # One worker: the pool's processes fill the cores.
        rows = make_rows(self._env_id, arguments, min(len(cases), 64), self._agent == "oracle", num_workers=1)
        seed = np.random.SeedSequence([zlib.crc32(self._task.encode()), len(self)]).generate_state(1)[0]
        new = np.empty((len(cases), self._k))
        for case, statistics in itertools.chain.from_iterable(play(rows, policy, cases, int(seed))):
            new[case.rollout - len(self)] = statistics["returns"]
        rows.close()
        self.returns = np.concatenate([self.returns, new])

    @property
    def mean(self) -> float:
        """The anchor."""
        return float(scored(self.returns, self._objective).mean())

    @property
    def sem(self) -> float:
        """Its standard error."""
        if not self._goals:
            values = scored(self.returns, self._objective)
            return float(values.std(ddof=1) / math.sqrt(len(values)))
        # Neither agent remembers an earlier attempt, so attempts at one goal are independent.
        assert self._objective == "k-episode"
        goals = case_variants(self._suite, self.split, self._task, len(self), self._k)
        attempts = pd.Series(self.returns.ravel()).groupby(goals.ravel())
        return math.sqrt(float((attempts.var(ddof=1) / attempts.size()).sum())) / self._goals

    def row(self, scale: float) -> dict[str, object]:
        """A line of the table."""
        return {
            **{"task": self._task, "split": self.split, "agent": self._agent, "mean": round(self.mean, 5)},
            **{"sem": round(self.sem, 6), "rollouts": len(self)},
            "sem_of_scale": round(self.sem / scale, 5),
        }


def measure(name: str, task: str, least: int, most: int) -> list[dict[str, object]]:
    """Both anchors of a task."""
    suite = load_suite(name)
    samples = [Sample(suite, task, agent) for agent in ("random", "oracle")]
    for sample in samples:
        if not len(sample):
            sample.extend(least)
    for _ in range(20):
        scale = samples[1].mean - samples[0].mean
        behind = [s for s in samples if s.sem > WANTED * scale and len(s) < most]
        if not behind:
            break
        for sample in behind:
            needed = len(sample) * (sample.sem / (WANTED * scale)) ** 2 * 1.05
            goal = min(needed, 4 * len(sample), most)
            sample.extend(max(math.ceil(goal), len(sample) + 1))
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
        whole, partial, began = HERE / f"{name}.csv", HERE / "unfinished" / f"{name}.csv", time.monotonic()
        path = whole if whole.exists() else partial
        table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
        path.parent.mkdir(exist_ok=True)
        done = table.loc[(table["sem_of_scale"] < PROMISED) | (table["rollouts"] >= arguments.most), "task"]
        missing = [task for task in load_suite(name).tasks if (done == task).sum() < 2]
        with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
            jobs = [pool.submit(measure, name, task, arguments.least, arguments.most) for task in missing]
            for job in track(as_completed(jobs), total=len(jobs), description=name):
                added = pd.DataFrame(job.result(), columns=COLUMNS)
                others = table[~table["task"].isin(added["task"])]
                table = pd.concat([others, added], ignore_index=True) if len(others) else added
                order = {task: i for i, task in enumerate(load_suite(name).tasks)}
                table = table.sort_values("task", key=lambda tasks, order=order: tasks.map(order), kind="stable")
                write_atomically(path, lambda temporary, table=table: table.to_csv(temporary, index=False))
        if path == partial:
            partial.rename(whole)
        worst = table.loc[table["sem_of_scale"].idxmax()]
        print(
            f"{name}: {len(missing)} tasks in {time.monotonic() - began:.0f} s; largest standard error "
            f"{worst['sem_of_scale']:.4f} of the scale ({worst['task']}, {worst['agent']})"
        )


if __name__ == "__main__":
    main()
