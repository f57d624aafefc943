"""An encoder for images from outside: one class and its name in the list, from environments to updates."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from mtbench_agents.transformer import encoders
from mtbench_agents.transformer.acting import ActingModel
from mtbench_agents.transformer.collector import Collector
from mtbench_agents.transformer.config import CollectConfig
from mtbench_agents.transformer.encoders import Encoder, VectorEncoder, make_encoder
from mtbench_agents.transformer.learner import Learner
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.policy import TransformerPolicy
from mtbench_agents.transformer.replay import Replay

from mtbench.errors import UsageError

from .test_collector import CPU, LEARNING, MODEL

IMAGES = gym.spaces.Box(0, 255, (12, 12, 3), dtype=np.uint8)


class ImageEncoder(Encoder):
    def __init__(self, space, action_size, config):
        super().__init__(space, action_size, config)
        self.convolution = torch.nn.Conv2d(space.shape[-1], 4, 3, stride=2)
        self.out = torch.nn.Linear(4 * 5 * 5 + action_size + 2, config.width)

    @classmethod
    def accepts(cls, space):
        return isinstance(space, gym.spaces.Box) and len(space.shape) == 3

    def forward(self, timesteps):
        frames = timesteps.observation
        assert frames.dtype == torch.uint8
        features = self.convolution(frames.flatten(0, -4).permute(0, 3, 1, 2) / 255).flatten(1)
        extra = [timesteps.previous_action, timesteps.previous_reward[..., None], timesteps.start[..., None]]
        return self.out(torch.cat([features.view(*frames.shape[:-3], -1), *extra], dim=-1))


class Bright(gym.Env):
    """Name the brighter half of a frame; nine frames make a rollout."""

    observation_space, action_space = IMAGES, gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 9
        return self._frame(), {}

    def step(self, action):
        reward = float(action == self.bright)
        self.left -= 1
        return self._frame(), reward, self.left == 0, False, {}

    def _frame(self):
        self.bright = int(self.np_random.integers(2))
        frame = np.zeros(IMAGES.shape, dtype=np.uint8)
        frame[:, 6 * self.bright : 6 * self.bright + 6] = 200
        return frame


def test_the_first_that_accepts_a_space_is_taken(monkeypatch):
    vectors = gym.spaces.Box(-1, 1, (3,), dtype=np.float32)
    assert type(make_encoder(vectors, 2, MODEL)) is VectorEncoder
    with pytest.raises(UsageError, match="no encoder for the observation space"):
        make_encoder(IMAGES, 2, MODEL)
    monkeypatch.setattr(encoders, "ENCODERS", (*encoders.ENCODERS, ImageEncoder))
    assert type(make_encoder(vectors, 2, MODEL)) is VectorEncoder
    assert type(make_encoder(IMAGES, 2, MODEL)) is ImageEncoder


def test_images_pass_through_collecting_replay_learning_and_playing(monkeypatch):
    monkeypatch.setattr(encoders, "ENCODERS", (*encoders.ENCODERS, ImageEncoder))
    envs = gym.vector.SyncVectorEnv([Bright] * 3)
    spaces = envs.single_observation_space, envs.single_action_space
    model = AgentModel.seeded(0, MODEL, LEARNING, *spaces)
    collector = Collector(envs, CollectConfig(epsilon_steps=100), 0, CPU)
    replay = Replay(500, *collector.examples)
    for rollout, _ in collector.collect(ActingModel(model), 90):
        assert len(rollout.rewards) == 9
        replay.add(rollout)
    assert replay.observations.dtype == np.uint8
    before = model.encoder.convolution.weight.clone()
    learner = Learner(model, LEARNING, 0, CPU)
    for update in range(3):
        learner.update(replay.sample(4, MODEL.context, np.random.default_rng(update)))
    assert not torch.equal(before, model.encoder.convolution.weight)

    policy = TransformerPolicy(model, CPU, "bright", 0, 0)
    policy.start(3, 0, *spaces)
    observations, _ = envs.reset(seed=0)
    actions = policy.act(observations, np.ones(3, dtype=np.bool_))
    assert actions.shape == (3,)
