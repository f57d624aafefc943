"""The reference agent on continuous actions: it learns a suite that is not part of mtbench.

    python results/learning/pendulum.py --seed 0 --out runs/learning/pendulum-seed0

It trains on the easy task of examples/pendulum and then plays 50 rollouts of the test split, by the commands of
:func:`commands`. The curve, exploration included, and what the agent earns in the end go to pendulum.csv beside this
file. An interrupted run resumes.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

from mtbench.records import read_run, write_atomically

ROOT = Path(__file__).parents[2]
UPDATES = 10_000
TASK = 'tasks=["PositionOnlyPendulumEasy"]'
# A longer horizon than the preset's: the pole is swung up in a second or two. The rest as for the cart pole in
# studies.py: near-ties are not imitated, data is fresh, and the rate falls for most of the run.
SETTINGS = (
    *(f"updates={UPDATES}", "evaluate_rounds=0", "model.context=64", "learning.discounts=[0.97]"),
    *("learning.batch_size=32", "learning.value_samples=4", "learning.target_rate=0.02"),
    *("learning.filter_threshold=0.05", "learning.cooldown=6000", "collect.replay=50000", "collect.epsilon_end=0.1"),
)


def commands(seed: int, out: Path) -> list[list[str]]:
    """What to run in the repository's root: training, then the test."""
    suite = ("MetaPendulum-v0", "--suite", "examples.pendulum", "--env", TASK)
    train = ["train", *suite, "--preset", "small", "--sync", f"seed={seed}", *SETTINGS, "--out", str(out)]
    test = ["evaluate", *suite, "--policy", str(out), "--rollouts-per-task", "50", "--out", str(out / "test")]
    return [["mtbench", *train], ["mtbench", *test]]


def main() -> None:
    """Train, test, and write the curve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    out = chosen.out.resolve()
    for program, *arguments in commands(chosen.seed, out):
        subprocess.run([Path(sys.executable).parent / program, *arguments], check=True, cwd=ROOT)
    rows, seconds = [], 0.0
    for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()):
        seconds += line["seconds"]
        row = {"updates": line["updates"], "steps": line["steps"], "minutes": round(seconds / 60, 2)}
        rows.append({"of": "training", **row, **_by_attempt(line["returns"])})
    sys.path.insert(0, str(ROOT))
    import examples.pendulum  # noqa: F401, PLC0415 (registers the ID that the records name)

    means = read_run(out / "test").episodes.groupby("attempt")["return"].mean()
    rows.append({**rows[-1], "of": "test", **_by_attempt(means.tolist())})
    write_atomically(
        Path(__file__).with_name("pendulum.csv"), lambda path: pd.DataFrame(rows).to_csv(path, index=False)
    )


def _by_attempt(returns: list[float]) -> dict[str, float]:
    return {f"attempt_{i}": round(value, 4) for i, value in enumerate(returns, 1)}


if __name__ == "__main__":
    main()
