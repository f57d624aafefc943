"""Are attempts of the batched games distributed as popgym's own? 10,000 of each task on either side.

    python results/vector/distributions.py

Both sides play uniformly random actions that exist in the task, on variants of their own: the engine the training
range, popgym the evaluation range. Returns and lengths are compared by a two-sample Kolmogorov-Smirnov test; the
p-values are corrected for 27 tasks times 2 comparisons (Holm). Writes distributions.csv beside this file.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track
from scipy import stats

from mtbench.records import write_atomically
from mtbench.spaces import native_actions
from mtbench.suites.popgym import SUITE, TASKS
from mtbench.suites.popgym.engine import POPGymEngine

HERE = Path(__file__).parent


def of_popgym(task: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of `count` attempts."""
    game = SUITE.make_base(TASKS[task])
    actions = native_actions(game.action_space)
    variants = SUITE.splits["train"].evaluation.sample(rng, count)
    returns, lengths = np.zeros(count), np.zeros(count)
    for i, variant in enumerate(variants):
        game.reset(seed=variant)
        drawn = iter(rng.integers(len(actions), size=TASKS[task].max_steps).tolist())
        over = False
        while not over:
            _, reward, terminated, truncated, _ = game.step(actions[next(drawn)])
            returns[i] += reward
            lengths[i] += 1
            over = terminated or truncated
    return returns, lengths


def of_the_engine(task: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of `count` attempts."""
    engine, index = POPGymEngine(SUITE, count, k=1), list(TASKS).index(task)
    variants = np.array(SUITE.splits["train"].variants.sample(rng, count))
    engine.start(0, count, np.full(count, index), variants)
    returns, lengths, playing = np.zeros(count), np.zeros(count), np.ones(count, dtype=np.bool_)
    reward, (terminated, truncated) = np.zeros(count), np.zeros((2, count), dtype=np.bool_)
    while playing.any():
        actions = rng.integers(engine.num_actions[index], size=count)
        engine.step(0, count, np.where(playing, actions, -1), reward, terminated, truncated)
        returns[playing] += reward[playing]
        lengths[playing] += 1
        playing &= ~(terminated | truncated)
    return returns, lengths


def holm(p: np.ndarray) -> np.ndarray:
    """P-values corrected for their number (Holm 1979)."""
    order = np.argsort(p)
    corrected = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    result = np.empty(len(p))
    result[order] = np.minimum(corrected, 1)
    return result


def main() -> None:
    """All tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = []
    for number, task in enumerate(track(list(TASKS), description="tasks")):
        rngs = [np.random.default_rng([arguments.seed, number, side]) for side in range(2)]
        sides = [
            play(task, arguments.attempts, rng) for play, rng in zip((of_popgym, of_the_engine), rngs, strict=True)
        ]
        for name, theirs, ours in zip(("return", "length"), *sides, strict=True):
            # Sums of the same numbers in another order differ in the last bits.
            test = stats.ks_2samp(np.round(theirs, 9), np.round(ours, 9))
            means = {"popgym_mean": theirs.mean(), "engine_mean": ours.mean()}
            rows.append({"task": task, "of": name, **means, "ks": test.statistic, "p": test.pvalue})
    frame = pd.DataFrame(rows)
    frame["p_corrected"] = holm(frame["p"].to_numpy())
    write_atomically(HERE / "distributions.csv", lambda path: frame.to_csv(path, index=False, float_format="%.5g"))
    print(frame.to_string())  # noqa: T201
    print(f"smallest corrected p: {frame['p_corrected'].min():.3f}")  # noqa: T201


if __name__ == "__main__":
    main()
