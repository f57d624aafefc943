"""What is timed is the agent on observations that its environment could show."""

import gymnasium as gym
import numpy as np
import pytest
from mtbench_agents.training.settings import updated
from mtbench_agents.transformer.bench import measure, random_observations
from mtbench_agents.transformer.config import preset
from mtbench_agents.transformer.trees import flat, tree_map

from .test_every_suite import IDS

SIZES = {"learning.batch_size": 2, "model.context": 6, "collect.num_envs": 3}


@pytest.mark.parametrize("env_id", IDS.values())
def test_every_suite_is_timed(env_id):
    numbers = measure(updated(preset("debug", env_id), SIZES), updates=1)
    assert (numbers["batch_size"], numbers["context"], numbers["envs"]) == (2, 6, 3)
    assert numbers["tokens_per_s"] == pytest.approx(12 / numbers["seconds_per_update"])
    assert numbers["ms_per_batched_action"] > 0


def test_a_batch_of_timesteps_is_timed_as_training_fills_it():
    sizes = SIZES | {"learning.batch_size": 5, "learning.batch_timesteps": 9}
    assert measure(updated(preset("debug"), sizes), updates=1)["batch_size"] == 2


@pytest.mark.parametrize("env_id", ["MTBabyAI-v0", "MTProcgen-Easy-v0", "ML10-v0"])
def test_observations_are_of_the_space_and_differ(env_id):
    space = gym.make(env_id).observation_space
    shown = random_observations(space, 5, np.random.default_rng(0))
    for i in range(5):
        one = tree_map(lambda array: array[i], shown)  # noqa: B023
        bounds = flat("o", space if not isinstance(space, gym.spaces.Dict) else dict(space.spaces))
        for name, leaf in flat("o", one).items():
            assert (leaf.shape, leaf.dtype) == (bounds[name].shape, bounds[name].dtype)
            assert leaf.dtype.kind == "f" or bounds[name].contains(leaf)
    differing = {name: not (leaf[0] == leaf[1]).all() for name, leaf in flat("o", shown).items()}
    assert differing == {name: name != "o.mission" for name in differing}
