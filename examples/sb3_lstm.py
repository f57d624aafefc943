"""sb3-contrib's RecurrentPPO on Dict observations.

Run ``python examples/sb3_lstm.py --help``. Needs the extra ``babyai`` and ``pip install sb3-contrib``.

``MultiInputLstmPolicy`` stops with ``input_size should be of type int, got: int64`` on every Dict that has a
MultiDiscrete part, here BabyAI's ``mission``: its features extractor adds up NumPy integers, and torch's LSTM takes
only Python's. The extractor below gives it one.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.torch_layers import CombinedExtractor

import mtbench  # noqa: F401 - registers the IDs


class Extractor(CombinedExtractor):
    """SB3's own, its number of features a Python integer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._features_dim = int(self._features_dim)


def train(env_id: str = "MTBabyAI-v0", steps: int = 1000, **settings: Any) -> RecurrentPPO:
    model = RecurrentPPO(
        "MultiInputLstmPolicy",
        gym.make(env_id),
        policy_kwargs={"features_extractor_class": Extractor},
        **settings,
    )
    return model.learn(steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-id", default="MTBabyAI-v0")
    parser.add_argument("--steps", type=int, default=1000)
    train(**vars(parser.parse_args()), verbose=1)
