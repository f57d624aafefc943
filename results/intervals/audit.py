"""How often the adaptation audit's 95 % intervals contain the truth, by simulation. Writes audit.csv.

python results/intervals/audit.py, then python results/pages.py

A rollout's score is its task's mean, an effect of the run, one of the case (its variant, which both conditions share)
and noise of its own. Memory adds to it by task, and more in some runs than in others. All effects are normal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mtbench.records import write_atomically
from mtbench.scoring.adaptation import lost
from mtbench.scoring.intervals import Floats
from mtbench.scoring.references import RAW, References

HERE = Path(__file__).parent
TASKS, ROLLOUTS = [f"task {i}" for i in range(27)], 20
NOISE, CASES = 0.2, 0.3  # standard deviations of a rollout's own noise, and between cases
SHARED = (0.0, NOISE)  # of a run's effect, and of how much more memory is worth in some runs than in others
RUNS = (1, 2, 3, 5, 10)
EXPERIMENTS, REPLICATES = 4000, 1000
WORTH = np.linspace(0.0, 0.4, len(TASKS))  # of memory, by task
COLUMNS = ("shared", "runs", "statistic", "experiments", "coverage", "width", "width of unpaired")


def draw(rng: np.random.Generator, shared: float, runs: int) -> tuple[Floats, Floats, Floats]:
    """Returns of both conditions, ``(runs, tasks, rollouts, 1)``, and what memory is worth in each run, ``(runs,)``."""
    shape = (runs, len(TASKS), ROLLOUTS)
    both = np.linspace(0, 1, len(TASKS))[:, None] + CASES * rng.normal(size=shape[1:]) + np.zeros(shape)
    both += shared * rng.normal(size=(runs, 1, 1))
    more = shared * rng.normal(size=runs)
    normal = both + WORTH[:, None] + more[:, None, None] + NOISE * rng.normal(size=shape)
    return normal[..., None], (both + NOISE * rng.normal(size=shape))[..., None], more


def simulate(shared: float, runs: int, experiments: int = EXPERIMENTS) -> list[dict[str, object]]:
    """Coverage and mean width. Of one run, the interval is about that run's own worth of memory, not training's."""
    rng, rng_of_intervals = (np.random.default_rng([round(1000 * shared), runs, i]) for i in range(2))
    references = References("simulated", {"raw": RAW}, {}, ())
    covered: dict[str, list[float]] = {"mean": [], "each task": []}
    widths: dict[str, list[float]] = {"mean": [], "each task": []}
    unpaired: list[float] = []

    def measured(normal: Floats, other: Floats) -> tuple[list[float], list[float], list[float]]:
        found = lost(
            normal, other, TASKS, "k-episode", references, "jackknife", replicates=REPLICATES, rng=rng_of_intervals
        )
        estimates = [found.means["raw"], *found.returns.values()]
        lows, highs = [e.low for e in estimates], [e.high for e in estimates]
        return lows, highs, [high - low for low, high in zip(lows, highs, strict=True)]

    for _ in range(experiments):
        normal, other, more = draw(rng, shared, runs)
        truth = np.array([WORTH.mean(), *WORTH]) + (more[0] if runs == 1 else 0.0)
        lows, highs, width = measured(normal, other)
        inside = (np.array(lows) <= truth) & (truth <= np.array(highs))
        covered["mean"].append(float(inside[0]))
        covered["each task"].append(float(inside[1:].mean()))
        widths["mean"].append(width[0])
        widths["each task"].append(float(np.mean(width[1:])))
        if runs == 1:  # the same rollouts, each paired with that of another case
            unpaired.append(float(np.mean(measured(normal, np.roll(other, 1, axis=2))[2][1:])))
    rows = []
    for name, shares in covered.items():
        parts = (shares, widths[name], unpaired if name == "each task" else [])
        cells = (f"{np.mean(part):.3f}" if part else "" for part in parts)
        rows.append(dict(zip(COLUMNS, (shared, runs, name, experiments, *cells), strict=True)))
    return rows


def shown() -> str:
    """The committed table as Markdown."""
    rows = pd.read_csv(HERE / "audit.csv", dtype={"coverage": str}).to_dict("records")
    lines = ["| shared effects | runs | mean over tasks | each task |", "| --- | --- | --- | --- |"]
    for mean, each in zip(rows[::2], rows[1::2], strict=True):
        name = "as large as the noise" if mean["shared"] else "none"
        lines.append(f"| {name} | {mean['runs']} | {mean['coverage']} | {each['coverage']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Simulate and write."""
    rows = [row for shared in SHARED for runs in RUNS for row in simulate(shared, runs)]
    write_atomically(HERE / "audit.csv", lambda temporary: pd.DataFrame(rows).to_csv(temporary, index=False))


if __name__ == "__main__":
    main()
