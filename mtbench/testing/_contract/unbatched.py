"""A vector environment of size 1 as a single environment, so that one set of tests covers both."""

import gymnasium as gym
import numpy as np

from mtbench.vector import make_vec
from mtbench.vector.infos import info_of


class Unbatched(gym.Env):
    """The only environment of a vector environment without autoreset."""

    def __init__(self, env_id, **kwargs):
        self.venv = make_vec(env_id, 1, autoreset_mode="Disabled", **kwargs)
        assert type(self.venv).__name__ == "VectorMetaRollout"
        self.observation_space = self.venv.single_observation_space
        self.action_space = self.venv.single_action_space
        self.suite, self.split, self.k = self.venv.suite, self.venv.split, self.venv.k
        self.tasks = self.venv.tasks

    @property
    def task(self):
        return list(self.suite.tasks)[self.venv.task_index[0]]

    @property
    def variant(self):
        return int(self.venv.variant[0])

    @property
    def _variants(self):
        return self.venv._variants[0].tolist()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        obs, infos = self.venv.reset(seed=seed, options=options)
        return first(obs), unbatched(infos)

    def step(self, action):
        obs, reward, terminated, truncated, infos = self.venv.step([action])
        return first(obs), reward[0].item(), terminated[0].item(), truncated[0].item(), unbatched(infos)

    def close(self):
        self.venv.close()


def first(batch):
    return {name: part[0] for name, part in batch.items()} if isinstance(batch, dict) else batch[0]


def unbatched(infos):
    """The info of the only environment, with Python's own numbers."""
    return _with_python_numbers(info_of(infos, 0))


def _with_python_numbers(value):
    if isinstance(value, dict):
        return {name: _with_python_numbers(part) for name, part in value.items()}
    return value.item() if isinstance(value, np.generic) else value
