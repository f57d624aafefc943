"""A small problem of memory that tests learn from, and the small learners that they learn with."""

import dataclasses

import gymnasium as gym
import numpy as np
import torch
from mtbench_agents.transformer.acting import ActingModel, Player
from mtbench_agents.transformer.config import LearningConfig, ModelConfig
from mtbench_agents.transformer.distributed import ALONE
from mtbench_agents.transformer.learner import Learner
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.replay import Replay, Rollout

CPU = torch.device("cpu")
MODEL = ModelConfig(
    encoder=(32,),
    width=32,
    feedforward=32,
    layers=1,
    heads=2,
    context=12,
    head=(32, 32),
    critics=2,
    bins=32,
    dropout=0.0,
)
ACTIONS = {"discrete": None, "continuous": gym.spaces.Box(-1, 1, (1,), dtype=np.float32)}
LEARNING = LearningConfig(
    discounts=(0.1, 0.9), batch_size=16, rate=3e-3, warmup=1, target_rate=0.05, reward_multiplier=10.0, clip=10.0
)
COMBINATIONS = [(a, c) for a in ("independent", "dependent") for c in ("independent", "dependent")]


def switched(on, actor, critic):
    """Switches that change what an update computes, for :func:`make`; some are for independent updates alone."""
    if not on:
        return {}
    own = {"own_actions": 1.0, "exact_actions": 1} if actor == "independent" else {}
    model = {"convolution": 2, "action_gates": True, "fine_inputs": 20.0, "fractions": True}
    both = {"model": model, "baseline": float(critic == "independent"), "actor_trunk": False, "horizon_warmup": 20}
    return both | own


def make(actor="independent", critic="independent", actions=None, model=None, device=CPU, ranks=ALONE, **changes):
    learning = dataclasses.replace(LEARNING, actor=actor, critic=critic, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        space = gym.spaces.Box(-5, 5, (3,), dtype=np.float32)
        sizes = dataclasses.replace(MODEL, **(model or {}))
        network = AgentModel(sizes, learning, space, actions or gym.spaces.Discrete(3))
    return Learner(network, learning, 0, device, context=sizes.context, ranks=ranks)


def copycat(continuous=False, rollouts=300, seed=0, pay=0.0):
    """The reward is for naming what was shown one step before: memory, and nothing but.

    Each step also pays `pay` times the number of what is shown.
    """
    rng = np.random.default_rng(seed)
    action = np.zeros(1, np.float32) if continuous else np.zeros((), np.int64)
    replay = Replay(10_000, np.zeros(3, np.float32), action)
    for _ in range(rollouts):
        length = int(rng.integers(5, 13))
        shown = rng.integers(3, size=length + 1)
        observations = np.eye(3, dtype=np.float32)[shown]
        before = np.concatenate([[0], shown[: length - 1]])
        if continuous:
            actions = rng.uniform(-1, 1, size=(length, 1)).astype(np.float32)
            rewards = -np.abs(actions[:, 0] - (before - 1) * 0.8)
        else:
            actions = rng.integers(3, size=length)
            rewards = (actions == before).astype(np.float32)
        replay.add(Rollout(observations, actions, (rewards + pay * shown[:length]).astype(np.float32), True))
    return replay


def train(learner, replay, updates):
    numbers = {}
    for _ in range(updates):
        numbers = learner.update(replay.sample(64, 12, np.random.default_rng(learner.updates)))
    return numbers


def floats(numbers):
    return {name: float(number) for name, number in numbers.items()}


def trained_until(learnt, learner, replay, most_updates):
    """Train for 100 updates at a time; whether it has learnt by the last at latest."""
    for _ in range(most_updates // 100):
        train(learner, replay, 100)
        if learnt():
            return True
    return False


def answers(model, continuous=False, device=CPU, pay=0.0):
    """How often (or how closely) the policy names the previous observation."""
    rng = np.random.default_rng(99)
    space = gym.spaces.Box(-1, 1, (1,), dtype=np.float32) if continuous else gym.spaces.Discrete(3)
    play = Player(200, space, rng, device)
    acting = ActingModel(model)
    play.restart(np.ones(200, dtype=bool))
    shown = rng.integers(3, size=(9, 200))
    score = []
    for t in range(9):
        if t:
            play.restart(np.zeros(200, dtype=bool))
        action = play.act(acting, np.eye(3, dtype=np.float32)[shown[t]])
        if t:
            target = (shown[t - 1] - 1) * 0.8 if continuous else shown[t - 1]
            score.append(np.abs(action[:, 0] - target).mean() if continuous else (action == target).mean())
            reward = -np.abs(action[:, 0] - target) if continuous else action == target
            play.received((reward + pay * shown[t]).astype(np.float32))
        play.took(action)
    return float(np.mean(score))
