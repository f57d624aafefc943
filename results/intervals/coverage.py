"""How often 95 % intervals contain the truth, by simulation. Writes coverage.csv.

python results/intervals/coverage.py, then python results/pages.py

A run's score on a task is the task's mean, plus an effect that all tasks of the run share, plus noise of its own; both
normal, the noise with a standard deviation of 0.2. Every experiment draws new runs of the same 27 tasks.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from mtbench.records import write_atomically
from mtbench.scoring.aggregates import AGGREGATES, Aggregate, performance_profile
from mtbench.scoring.improvement import improvement
from mtbench.scoring.intervals import METHODS, Floats, Sample

HERE = Path(__file__).parent
TASKS = 27
NOISE = 0.2
SHARED = (0.0, NOISE)
RUNS = (2, 3, 5, 10)
EXPERIMENTS = 2000
HARD_EXPERIMENTS = 500  # of the cases that are hard for one aggregate
REPLICATES = 300
THRESHOLD = 0.5  # where the performance profile is looked at
SHIFT = 0.1  # by which the second agent is worse
MEDIAN = "median, one run deleted"  # what the median's intervals would be, were it a smooth statistic
ROLLOUTS = 20  # of each task, where there is one run

#: Means of the tasks: what suites look like, and two cases that are hard for one aggregate each.
TASK_MEANS: dict[str, Floats] = {
    "spread": np.linspace(0.0, 1.2, TASKS),
    "halves": np.repeat([0.0, 1.0], [TASKS // 2, TASKS - TASKS // 2]),
    "ones": np.ones(TASKS),
}
COLUMNS = ("tasks", "shared", "runs", "method", "statistic", "experiments", "coverage", "width")


def draw(rng: np.random.Generator, means: Floats, shared: float, runs: int) -> Floats:
    """Scores of one experiment as records have them: (runs, tasks, 1 rollout, 1 attempt)."""
    scores = means + shared * rng.normal(size=(runs, 1)) + NOISE * rng.normal(size=(runs, len(means)))
    return np.asarray(scores[..., None, None])


def truths(means: Floats, shared: float) -> dict[str, Floats | float]:
    """What each statistic estimates: its value for infinitely many runs."""
    spread = math.hypot(shared, NOISE)
    rng = np.random.default_rng(0)
    many = (means + spread * rng.normal(size=(100_000, 1))).astype(np.float64)
    above = [0.5 * math.erfc((THRESHOLD - m) / spread / math.sqrt(2)) for m in means]
    better = 0.5 * math.erfc(-SHIFT / (2 * spread))
    return {
        "IQM": float(AGGREGATES["IQM"].of(many)),
        "median": float(np.median(means)),
        MEDIAN: float(np.median(means)),
        "mean": float(means.mean()),
        "optimality gap": float(AGGREGATES["optimality gap"].of(many)),
        "each task": means,
        "profile": float(np.mean(above)),
        "P(X > Y)": better,
    }


def intervals(x: Floats, y: Floats, method: str, rng: np.random.Generator) -> Iterator[tuple[str, Floats, Floats]]:
    """Each statistic's interval, from the scores of two agents."""
    sample = Sample(x, method, replicates=REPLICATES, rng=rng)
    for name, aggregate in AGGREGATES.items():
        yield name, *_aggregate_interval(sample, aggregate)
    if method == "jackknife":
        one_at_a_time = Aggregate(AGGREGATES["median"].of, smooth=True)
        yield MEDIAN, *_aggregate_interval(sample, one_at_a_time)
    tasks = sample.estimate(lambda v: v[..., 0].mean(axis=-2))
    yield "each task", tasks.low, tasks.high
    curve = sample.estimate(lambda v: performance_profile(v[..., 0], np.array([THRESHOLD])), 0.0, 1.0, step=1 / TASKS)
    yield "profile", curve.low, curve.high
    better = improvement(x[..., 0], y[..., 0], method, replicates=REPLICATES, rng=rng)
    yield "P(X > Y)", np.asarray(better.low), np.asarray(better.high)


def _aggregate_interval(sample: Sample, aggregate: Aggregate) -> tuple[Floats, Floats]:
    estimate = sample.estimate(lambda v: aggregate.of(v[..., 0]), aggregate.least, smooth=aggregate.smooth)
    return estimate.low, estimate.high


def simulate(tasks: str, shared: float, runs: int, experiments: int = EXPERIMENTS) -> list[dict[str, object]]:
    """Coverage and mean width of every statistic's interval, of both methods on the same scores."""
    means = TASK_MEANS[tasks]
    true = truths(means, shared)
    seed = (list(TASK_MEANS).index(tasks), round(1000 * shared), runs)
    rng, rng_of_intervals = (np.random.default_rng([*seed, i]) for i in range(2))
    covered: dict[tuple[str, str], list[float]] = {}
    widths: dict[tuple[str, str], list[float]] = {}
    for _ in range(experiments):
        x, y = draw(rng, means, shared, runs), draw(rng, means - SHIFT, shared, runs)
        for method in METHODS:
            for name, low, high in intervals(x, y, method, rng_of_intervals):
                inside = (low - 1e-9 <= true[name]) & (true[name] <= high + 1e-9)
                covered.setdefault((method, name), []).append(float(np.mean(inside)))
                widths.setdefault((method, name), []).append(float(np.mean(high - low)))
    return [_row(tasks, shared, runs, *key, covered[key], widths[key]) for key in covered]


def simulate_one_run(experiments: int = EXPERIMENTS) -> list[dict[str, object]]:
    """One run and its rollouts: what the interval should contain is that run's own score, not training's."""
    means, rng = TASK_MEANS["spread"], np.random.default_rng([1, 0])
    true = {name: aggregate.of(means[None]) for name, aggregate in AGGREGATES.items()}
    covered: dict[str, list[float]] = {}
    widths: dict[str, list[float]] = {}
    for _ in range(experiments // 4):
        values = means[None, :, None, None] + NOISE * rng.normal(size=(1, TASKS, ROLLOUTS, 1))
        sample = Sample(values, replicates=REPLICATES, rng=rng)
        for name, aggregate in AGGREGATES.items():
            low, high = _aggregate_interval(sample, aggregate)
            covered.setdefault(name, []).append(float(low <= true[name] <= high))
            widths.setdefault(name, []).append(float(high - low))
    return [_row("spread", 0.0, 1, "jackknife", name, covered[name], widths[name]) for name in covered]


def _row(
    tasks: str, shared: float, runs: int, method: str, name: str, covered: list[float], widths: list[float]
) -> dict[str, object]:
    values = (tasks, shared, runs, method, name, len(covered), f"{np.mean(covered):.3f}", f"{np.mean(widths):.3f}")
    return dict(zip(COLUMNS, values, strict=True))


def table(rows: list[dict[str, str]], tasks: str, method: str, statistics: list[str]) -> str:
    """Coverage as Markdown, one row for each number of runs and shared effect."""
    found = {
        (row["shared"], row["runs"], row["statistic"]): row["coverage"]
        for row in rows
        if (row["tasks"], row["method"]) == (tasks, method)
    }
    cases = sorted({key[:2] for key in found}, key=lambda case: (float(case[0]), int(case[1])))
    lines = [f"| shared effect | runs | {' | '.join(statistics)} |", f"|{' --- |' * (2 + len(statistics))}"]
    for shared, runs in cases:
        name = "none" if float(shared) == 0 else "as large as the noise"
        cells = [found.get((shared, runs, statistic), "-") for statistic in statistics]
        lines.append(f"| {name} | {runs} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def shown(tasks: str, method: str) -> str:
    """The committed coverage of one method: of all statistics, or of the aggregates in a case that is hard for one."""
    everything = [*AGGREGATES, "each task", "profile", "P(X > Y)", *([MEDIAN] if method == "jackknife" else [])]
    return table(read_table(), tasks, method, everything if tasks == "spread" else list(AGGREGATES))


def main() -> None:
    """Simulate and write."""
    rows = []
    for tasks in TASK_MEANS:
        experiments = EXPERIMENTS if tasks == "spread" else HARD_EXPERIMENTS
        rows += [row for shared in SHARED for runs in RUNS for row in simulate(tasks, shared, runs, experiments)]
    rows += simulate_one_run()
    write_atomically(HERE / "coverage.csv", lambda temporary: pd.DataFrame(rows).to_csv(temporary, index=False))


def read_table() -> list[dict[str, str]]:
    """The rows of coverage.csv."""
    with (HERE / "coverage.csv").open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
