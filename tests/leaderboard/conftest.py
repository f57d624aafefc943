import shutil

import numpy as np
import pytest

import mtbench
from mtbench.leaderboard.card import CARD
from mtbench.leaderboard.submission import RUNS

CARD_TEXT = """
name = "careful"
authors = ["A. Author", "Zoë Ünal"]
description = "Plays at random, with a generator of its own."
trained_on = "nothing"
training_time = "none"
hardware = "none"
link = "https://example.org/paper?id=1"
"""


class Careful:
    def __init__(self, seed):
        self.seed = seed

    def start(self, num_envs, seed, observation_space, action_space):
        self.rng, self.n, self.count = np.random.default_rng([seed, self.seed]), num_envs, int(action_space.n)

    def act(self, observations, reset_mask):
        return self.rng.integers(self.count, size=self.n)


def evaluated(out, seed, **changes):
    arguments = {"agent": "careful", "train_seed": seed, "save_actions": True, "jobs": 1, **changes}
    return mtbench.evaluate("MTPOPGym-v0", Careful(seed), out, **arguments)


@pytest.fixture(scope="session")
def honest(tmp_path_factory):
    """A submission of three seeds, with actions."""
    folder = tmp_path_factory.mktemp("submissions") / "careful-agent"
    for seed in range(3):
        evaluated(folder / RUNS / f"seed{seed}", seed)
    (folder / CARD).write_text(CARD_TEXT, encoding="utf-8")
    return folder


@pytest.fixture
def submission(honest, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(honest, tmp_path / honest.name)
