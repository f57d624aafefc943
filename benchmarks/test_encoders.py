"""An update's share of the encoders, forward and backward, beside the published ones at the same sizes.

``make bench`` prints the table. A batch has 4 slices of the paper's context, at most 128 timesteps; where rollouts are
shorter than slices (BabyAI), half of it is padding, which ours does not encode.
"""

import statistics
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from mtbench_agents.transformer.bench import random_observations
from mtbench_agents.transformer.config import preset
from mtbench_agents.transformer.encoders import make_encoder
from mtbench_agents.transformer.encoders.base import Timesteps
from mtbench_agents.transformer.trees import tree_map
from published_encoders import PublishedGridReader, PublishedResNet

IDS = ("MTProcgen-Easy-v0", "MTProcgen-MemoryHard-v0", "MTAtari-v0", "MTBabyAI-v0")
SLICES, LONGEST, ROUNDS = 4, 128, 5

ROWS = {}


@pytest.mark.parametrize("env_id", IDS)
def test_encoder(env_id):
    torch.manual_seed(0)
    env = gym.make(env_id)
    space, actions = env.observation_space, int(env.action_space.n)
    config = preset("paper", env_id).model
    length = min(config.context, LONGEST)
    slices = [random_observations(space, length, np.random.default_rng(i)) for i in range(SLICES)]
    shown = tree_map(lambda *parts: torch.from_numpy(np.concatenate(parts)), *slices)
    M = SLICES * length
    real = M // 2 if isinstance(space, gym.spaces.Dict) else M
    ours = make_encoder(space, actions, config).train()
    sequence = torch.arange(M) // length
    part = tree_map(lambda all: all[:real], shown)
    timesteps = Timesteps(part, torch.zeros(real, actions), torch.zeros(real), torch.zeros(real), sequence[:real])
    if isinstance(space, gym.spaces.Dict):
        grid, missions = shown["image"], shown["mission"]
        numbers = torch.cat([shown[name] for name in shown if name not in ("image", "mission")], dim=-1)
        numbers = torch.cat([numbers, torch.zeros(M, actions + 2)], dim=-1)
        values, words = int(space["image"].high.max()) + 1, int(space["mission"].nvec.max())
        theirs = PublishedGridReader(values, words, grid.shape[1:3], config.width, numbers.shape[1])
        inputs = grid, missions, numbers
    else:
        inputs = shown, torch.zeros(M, actions + 2)
        theirs = PublishedResNet(space.shape, config.channels, config.width, actions + 2)
    sides = {"ours": lambda: ours(timesteps), "published": lambda: theirs(*inputs)}
    seconds = {name: [] for name in sides}
    for round_ in range(ROUNDS + 1):
        for name, forward in sides.items():
            began = time.perf_counter()
            forward().square().mean().backward()
            if round_:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    ROWS[env_id] = (M, real, *(statistics.median(values) for values in seconds.values()))


def test_print_the_table(capsys):
    if not ROWS:
        pytest.skip("nothing was timed")
    with capsys.disabled():
        for env_id, (places, real, ours, theirs) in ROWS.items():
            print(
                f"\n{env_id:24} {real:4} of {places} places are real: {ours:.3g} s, published {theirs:.3g} s,", end=""
            )
            print(f" ratio {theirs / ours:.2f}", end="")
