"""Losses of the first 20 updates, as they were when somebody last looked: a change nobody meant shows here.

python -m tests.agents.transformer.golden_losses     # writes golden_losses.json anew; say in the commit why
"""

from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from mtbench.records import write_json

from .copycat import COMBINATIONS, copycat, make

FILE = Path(__file__).with_name("golden_losses.json")
UPDATES = 20
ACTIONS = {"discrete": None, "continuous": gym.spaces.Box(-1, 1, (1,), dtype=np.float32)}


def losses(actor: str, critic: str, kind: str) -> dict[str, list[float]]:
    """Both losses, update by update."""
    learner = make(actor, critic, actions=ACTIONS[kind])
    replay = copycat(continuous=kind == "continuous")
    numbers = [learner.update(replay.sample(16, 12, np.random.default_rng(learner.updates))) for _ in range(UPDATES)]
    return {name: [round(float(n[name]), 6) for n in numbers] for name in ("actor", "critic")}


def main() -> None:
    """Write the file."""
    torch.set_num_threads(1)
    golden = {f"{a}/{c}/{kind}": losses(a, c, kind) for a, c in COMBINATIONS for kind in ACTIONS}
    write_json(FILE, golden)


if __name__ == "__main__":
    main()
