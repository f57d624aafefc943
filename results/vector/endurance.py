"""A billion steps: does memory grow?

    python results/vector/endurance.py

Writes endurance.csv beside this file: resident memory over steps.
"""

import argparse
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
from rich.progress import track

from mtbench.records import write_atomically

HERE = Path(__file__).parent
ROWS = 20


def resident_mib() -> float:
    """Of this process, now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> None:
    """Step and watch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000_000)
    parser.add_argument("--num-envs", type=int, default=1024)
    arguments = parser.parse_args()
    venv = gym.make_vec("mtbench:MTPOPGym-v0", num_envs=arguments.num_envs)
    venv.reset(seed=0)
    actions = np.random.default_rng(0).integers(27, size=(256, arguments.num_envs))
    batches = -(-arguments.steps // (arguments.num_envs * ROWS))
    rows, rollouts, began = [], 0, time.monotonic()
    for row in track(range(ROWS), description="steps"):
        for i in range(batches):
            _, _, terminated, _, _ = venv.step(actions[i % 256])
            rollouts += int(terminated.sum())
        steps = (row + 1) * batches * arguments.num_envs
        seconds = round(time.monotonic() - began, 1)
        rows.append(
            {"steps": steps, "rollouts": rollouts, "seconds": seconds, "resident_mib": round(resident_mib(), 1)}
        )
    frame = pd.DataFrame(rows)
    write_atomically(HERE / "endurance.csv", lambda path: frame.to_csv(path, index=False))
    print(frame.to_string())  # noqa: T201


if __name__ == "__main__":
    main()
