"""Acting is the policy that the learner sees, sampled; and it takes the newest weights."""

import dataclasses

import gymnasium as gym
import mtbench_agents.transformer.acting as acting_module
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from mtbench_agents.transformer import graphs
from mtbench_agents.transformer.acting import ActingModel, Inputs, NewestWeights, Player
from mtbench_agents.transformer.collector import Collector
from mtbench_agents.transformer.config import CollectConfig, LearningConfig, ModelConfig
from mtbench_agents.transformer.losses import Losses
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.policy import TransformerPolicy
from mtbench_agents.transformer.replay import Replay, Rollout
from mtbench_agents.transformer.slices import prepare
from mtbench_agents.transformer.trees import tree_map

from mtbench.policy import ValuingPolicy
from mtbench.rollout import MetaRollout
from tests import toy

from .waiting import NothingWaits

CPU = torch.device("cpu")
MODEL = ModelConfig(
    encoder=(16,),
    channels=(4, 8),
    width=16,
    feedforward=16,
    layers=2,
    heads=2,
    context=200,
    head=(8, 8),
    critics=2,
    dropout=0.0,
)
LEARNING = LearningConfig(discounts=(0.5, 0.9, 0.99), reward_multiplier=1.0)


class Moving(toy.Toy):
    def action_space(self):
        return gym.spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)


SETTINGS = {
    "discrete": lambda: gym.make("MTPOPGym-v0", tasks=["HigherLowerEasy"], objective="k-episode"),
    "continuous": lambda: MetaRollout(Moving(), k=2),
    "images": lambda: gym.make("MTProcgen-Easy-v0", tasks=["bigfish"], max_steps=60, objective="k-shot"),
    "grids and missions": lambda: gym.make("MTBabyAI-v0", tasks=["BabyAI-GoToRedBall-v0", "BabyAI-GoToLocal-v0"]),
}


def opinionated(envs, seed=0, baseline=0.0, **switches):
    """A model whose policy depends on all of its inputs, as a trained one does."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes, learning = dataclasses.replace(MODEL, **switches), dataclasses.replace(LEARNING, baseline=baseline)
        model = AgentModel(sizes, learning, envs.single_observation_space, envs.single_action_space)
        with torch.no_grad():
            model.actor.out.weight.mul_(300.0)
            if model.baseline is not None:
                model.baseline.out.weight.mul_(30.0)
            for parameter in model.encoder.parameters():
                parameter.mul_(3.0)
    return model.eval()


def played(kind, model, envs, steps):
    """Rollouts, each with the noise that drew its actions."""
    collector = Collector(envs, CollectConfig(epsilon_start=0.0, epsilon_end=0.0), 0, CPU)
    acting = ActingModel(model)
    noise, where = [], []
    forward, finish = acting.forward, collector._finish

    def recording(inputs, *rest):
        noise.append(inputs.noise.clone())
        return forward(inputs, *rest)

    def finishing(i, *rest):
        where.append(i)
        return finish(i, *rest)

    acting.forward, collector._finish = recording, finishing
    found = []
    for rollout, _ in collector.collect(acting, steps):
        length, i = len(rollout.rewards), where[len(found)]
        found.append((rollout, torch.stack(noise[len(noise) - length :])[:, i]))
    return found


@pytest.mark.parametrize("kind", SETTINGS)
def test_actions_are_drawn_from_the_policy_that_the_learner_sees(kind):
    """On every stored rollout: the last discount's policy, with the rollout's own rewards, actions and memory."""
    envs = SyncVectorEnv([SETTINGS[kind] for _ in range(3)])
    model = opinionated(envs)
    losses = Losses(model, LEARNING, CPU)
    rollouts = played(kind, model, envs, 1200)
    assert len(rollouts) >= 6
    for rollout, noise in rollouts:
        replay = Replay(1000, tree_map(lambda all: all[0], rollout.observations), rollout.actions[0])
        replay.add(rollout)
        batch = replay.sample(1, len(rollout.rewards), np.random.default_rng(0))
        policy = model.actor(losses.transitions(prepare(batch, CPU).slices).state)
        if kind != "continuous":
            chances = policy.probabilities[:, -1]
            assert chances.max(dim=1).values.median() < 0.9, "sampling differs from taking the likeliest"
            expected = torch.searchsorted(chances.cumsum(dim=1), noise.contiguous())[:, 0].clamp(
                max=chances.shape[1] - 1
            )
            assert (expected.numpy() == rollout.actions).mean() > 0.99
        else:
            expected = torch.tanh(policy.mean[:, -1] + policy.log_std[:, -1].exp() * noise)
            assert torch.allclose(expected, torch.from_numpy(rollout.actions), atol=1e-3)


@pytest.mark.parametrize("baseline", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_values_of_films_are_those_that_the_learner_sees(kind, baseline):
    """Along a rollout: the critics' average for the last discount, of the policy's actions, in rewards as paid."""
    envs = SyncVectorEnv([SETTINGS[kind]])
    model = opinionated(envs, baseline=baseline)
    policy = TransformerPolicy(model, CPU, "agent", 0, 0, multiplier=4.0)
    assert isinstance(policy, ValuingPolicy)
    policy.start(1, 0, envs.single_observation_space, envs.single_action_space)
    observation, _ = envs.reset(seed=0)
    observations, actions, rewards, values = [observation[0].copy()], [], [], []
    over = np.array([True])
    while not over[0] or not rewards:
        action, value = policy.act_and_value(observation, over)
        values.append(value[0])
        observation, reward, terminated, truncated, _ = envs.step(action)
        policy.observe_rewards(reward)
        over = terminated | truncated
        observations.append(observation[0].copy())
        actions.append(policy._player.previous_action[0].copy())
        rewards.append(reward[0])
    rollout = Rollout(np.array(observations), np.array(actions), np.array(rewards, np.float32), True)
    replay = Replay(1000, rollout.observations[0], rollout.actions[0])
    replay.add(rollout)
    slices = prepare(replay.sample(1, len(rewards), np.random.default_rng(0)), CPU).slices
    with torch.no_grad():
        t = Losses(model, LEARNING, CPU).transitions(slices)
        states, pi = t.state, model.actor(t.state)
        if kind == "discrete":
            raw = model.raw_to_values(model.critic(states, None))  # (E, N, G, S)
            expected = (raw * pi.probabilities).sum(dim=-1)[..., -1].mean(dim=0) / 4
        else:
            raw = model.raw_to_values(model.critic(states, torch.tanh(pi.mean)[:, :, None]))
            expected = raw[..., -1, 0].mean(dim=0) / 4
        if model.baseline is not None:
            expected = expected + model.baseline_values(model.baseline(t.embedded, t.step))[:, -1] / 4
    assert np.ptp(values) > 0.01 * np.abs(values).max()
    np.testing.assert_allclose(values, expected.numpy(), rtol=1e-3, atol=1e-4)


def test_a_policy_that_says_its_values_acts_alike():
    envs = SyncVectorEnv([SETTINGS["discrete"]])
    actions = []
    for valued in (False, True):
        policy = TransformerPolicy(opinionated(envs), CPU, "agent", 0, 0)
        policy.start(1, 3, envs.single_observation_space, envs.single_action_space)
        observation, _ = envs.reset(seed=0)
        over, played = np.array([True]), []
        for _ in range(60):
            action = policy.act_and_value(observation, over)[0] if valued else policy.act(observation, over)
            played.append(int(action[0]))
            observation, reward, terminated, truncated, _ = envs.step(action)
            policy.observe_rewards(reward)
            over = terminated | truncated
        actions.append(played)
    assert actions[0] == actions[1]
    assert len(set(actions[0])) > 1


def inputs(envs, step):
    rng = np.random.default_rng(step)
    return Inputs(
        observation=torch.from_numpy(rng.normal(size=envs.observation_space.shape).astype(np.float32)),
        previous_action=torch.from_numpy(rng.integers(3, size=3)),
        previous_reward=torch.from_numpy(rng.normal(size=3).astype(np.float32)),
        steps=torch.tensor([step, step, 0]),
        noise=torch.from_numpy(rng.random((3, 1)).astype(np.float32)),
    )


@pytest.mark.parametrize("convolution", [0, 3])
def test_acting_compiles_as_one_graph_and_acts_alike(convolution, monkeypatch):
    monkeypatch.setattr(graphs, "BACKEND", "eager")
    envs = SyncVectorEnv([SETTINGS["discrete"] for _ in range(3)])
    acting = ActingModel(opinionated(envs, convolution=convolution))
    step = graphs.one_graph(acting.forward)
    memories = [acting.backbone.new_memory(3, CPU, tensors=True) for _ in range(2)]
    for t in range(20):
        assert torch.equal(step(inputs(envs, t), memories[0], 64), acting.forward(inputs(envs, t), memories[1], t + 1))


@pytest.mark.parametrize("convolution", [0, 3])
def test_acting_never_makes_a_device_wait(convolution):
    envs = SyncVectorEnv([SETTINGS["discrete"] for _ in range(3)])
    acting = ActingModel(opinionated(envs, convolution=convolution))
    memory = acting.backbone.new_memory(3, CPU, tensors=True)
    with NothingWaits() as mode:
        acting(inputs(envs, 3), memory, 4)
    assert mode.operations > 20


def test_newest_weights_arrive_once():
    envs = SyncVectorEnv([SETTINGS["discrete"]])
    old, new = opinionated(envs, 0), opinionated(envs, 1)
    acting, newest = ActingModel(old), NewestWeights(old)
    newest.copy_to(acting)
    newest.put(new)
    with torch.no_grad():
        new.actor.out.bias.add_(1.0)  # the learner goes on
    newest.copy_to(acting)
    wanted = ActingModel(opinionated(envs, 1))
    for mine, theirs in zip(acting.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with torch.no_grad():
        acting.actor.out.bias.zero_()
    newest.copy_to(acting)
    assert not acting.actor.out.bias.any(), "nothing new"


def test_a_restarted_row_forgets():
    envs = SyncVectorEnv([SETTINGS["discrete"] for _ in range(2)])
    acting = ActingModel(opinionated(envs))
    observations = np.random.default_rng(0).normal(size=(6, *envs.observation_space.shape)).astype(np.float32)

    def play(restarts):
        player = Player(2, envs.single_action_space, np.random.default_rng(3), CPU)
        actions = []
        for t in range(6):
            player.restart(np.array([t in restarts, t == 0]))
            actions.append(player.act(acting, observations[t]).copy())
            player.took(actions[-1])
        return np.array(actions), player

    (through, _), (restarted, player) = play({0}), play({0, 3})
    assert (through[:3] == restarted[:3]).all()
    assert (through[:, 1] == restarted[:, 1]).all(), "other rows go on"
    assert player._steps.tolist() == [3, 6]


def test_threads_share_the_environments(monkeypatch):
    """As one thread acts, up to rounding; and what else PyTorch does here keeps its threads."""
    monkeypatch.setattr(acting_module, "_WORTH_A_THREAD", 2)
    envs = SyncVectorEnv([SETTINGS["discrete"] for _ in range(7)])
    acting, before = ActingModel(opinionated(envs)), torch.get_num_threads()
    observations = np.random.default_rng(0).normal(size=(12, *envs.observation_space.shape)).astype(np.float32)
    played = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            player, actions = Player(7, envs.single_action_space, np.random.default_rng(3), CPU), []
            for t in range(12):
                player.restart(np.arange(7) == t)
                actions.append(player.act(acting, observations[t]).copy())
                player.took(actions[-1])
            played.append(np.array(actions))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (played[0] == played[1]).all()
    assert len(np.unique(played[0])) > 1
