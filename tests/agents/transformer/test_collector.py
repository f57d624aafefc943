"""Rollouts in the replay are exactly what the environments played, under Gymnasium's next-step autoreset."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from mtbench_agents.transformer.acting import ActingModel
from mtbench_agents.transformer.collector import Collector
from mtbench_agents.transformer.config import CollectConfig, LearningConfig, ModelConfig
from mtbench_agents.transformer.model import AgentModel

from mtbench.rollout import MetaRollout
from mtbench.suite import load_suite
from mtbench.vector import make_vec
from tests import toy

MODEL = ModelConfig(encoder=(16,), width=16, feedforward=16, layers=1, heads=2, context=16, head=(8, 8), critics=2)
LEARNING = LearningConfig(discounts=(0.9, 0.99))
CPU = torch.device("cpu")


class Recorded(gym.Wrapper):
    """Keeps what truly happened: one list of (observation, action, reward) per rollout."""

    def __init__(self, env):
        super().__init__(env)
        self.rollouts = []

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        self.rollouts.append([(observation, None, None)])
        return observation, info

    def step(self, action):
        result = self.env.step(action)
        self.rollouts[-1].append((result[0], action, result[1]))
        return result


def setting(tasks=("MineSweeperEasy", "PositionOnlyCartPoleEasy"), n=5, seed=0, config=None, make=None):
    make = make or (lambda: Recorded(gym.make("MTPOPGym-v0", tasks=list(tasks))))
    envs = SyncVectorEnv([make for _ in range(n)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ActingModel(AgentModel(MODEL, LEARNING, envs.single_observation_space, envs.single_action_space))
    return envs, model, Collector(envs, config or CollectConfig(epsilon_steps=1000), seed, CPU)


def test_every_rollout_is_what_its_environment_played():
    envs, model, collector = setting()
    collected = list(collector.collect(model, 1500))
    assert collector.steps >= 1500
    truth = {}
    for env in envs.envs:
        for steps in env.rollouts:
            truth[np.stack([o for o, _, _ in steps]).tobytes()] = steps
    assert len(collected) > 20
    for rollout, returns in collected:
        steps = truth[rollout.observations.tobytes()]
        assert rollout.actions.tolist() == [a for _, a, _ in steps[1:]]
        assert rollout.rewards.tolist() == np.float32([r for _, _, r in steps[1:]]).tolist()
        assert rollout.terminated is True
        assert returns[-1] == pytest.approx(rollout.rewards.sum(), abs=1e-5)
    played = sum(len(steps) - 1 for env in envs.envs for steps in env.rollouts)
    assert played == collector.steps, "the reset's own step is no environment step"


def test_truncated_rollouts_are_not_terminated():
    _, model, collector = setting(make=lambda: gym.make("MTPOPGym-v0", tasks=["RepeatFirstEasy"], max_steps=20))
    rollouts = [r for r, _ in collector.collect(model, 300)]
    assert rollouts
    assert not any(r.terminated for r in rollouts)


def test_collecting_is_seeded_and_restarts_alike():
    runs = []
    for seed in (1, 1, 2):
        _, model, collector = setting(seed=seed)
        runs.append([r.actions.tolist() for r, _ in collector.collect(model, 400)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    _, model, collector = setting(seed=1)
    list(collector.collect(model, 100))
    collector.restart(7)
    collector.steps = 0
    one = [r.actions.tolist() for r, _ in collector.collect(model, 300)]
    _, model, fresh = setting(seed=1)
    fresh.restart(7)
    assert one == [r.actions.tolist() for r, _ in fresh.collect(model, 300)]


def test_epsilon_falls_and_is_obeyed():
    config = CollectConfig(epsilon_start=1.0, epsilon_end=0.2, epsilon_steps=100)
    _, model, collector = setting(config=config)
    assert collector.epsilon == 1.0
    list(collector.collect(model, 50))
    assert 0.2 < collector.epsilon < 0.7
    list(collector.collect(model, 200))
    assert collector.epsilon == pytest.approx(0.2)


def test_epsilon_falls_within_a_rollout():
    """A policy that always plays 0, and environments whose curiosity is full: other actions are exploration."""
    config = CollectConfig(epsilon_start=1.0, epsilon_late=(0.0, 0.0), epsilon_horizon=20, epsilon_steps=10**9)
    _, model, collector = setting(tasks=["RepeatFirstEasy"], n=40, config=config)
    with torch.no_grad():
        model.actor.out.bias.view(2, 27)[:, 0] = 50.0
    collector._curiosity[:] = 1.0
    rollouts = []
    while len(rollouts) < 40:
        rollouts += [rollout for rollout, _ in collector.collect(model, 40)]
    explored = np.mean([rollout.actions != 0 for rollout in rollouts[:40]], axis=0)
    assert explored[0] > 0.8, "26 of 27 random actions are not 0"
    assert 0.25 < explored[8:12].mean() < 0.75, "half way down"
    assert (explored[20:] == 0).all()


def test_each_rollout_draws_how_much_it_explores():
    """A policy that always plays 0: other actions are exploration, by a share drawn uniformly for each rollout."""
    config = CollectConfig(epsilon_start=1.0, epsilon_end=1.0)
    _, model, collector = setting(tasks=["RepeatFirstEasy"], n=20, config=config)
    with torch.no_grad():
        model.actor.out.bias.view(2, 27)[:, 0] = 50.0
    shares = [float(np.mean(rollout.actions != 0)) for rollout, _ in collector.collect(model, 20 * 5 * 103)]
    assert len(shares) >= 80
    assert np.mean(shares) == pytest.approx(0.5 * 26 / 27, abs=0.12)
    assert min(shares) < 0.15
    assert max(shares) > 0.8
    assert np.std(shares) == pytest.approx(12**-0.5, abs=0.07), "as of uniform draws"
    by_environment = np.array(shares[:80]).reshape(4, 20)  # all rollouts are equally long
    assert np.mean(by_environment.std(axis=0)) > 0.15, "drawn anew for each rollout"


class Wide(toy.Toy):
    def action_space(self):
        return gym.spaces.Box(-1.0, 1.0, (1,), dtype=np.float32)


def continuous(n=4, **collect):
    return setting(make=lambda: Recorded(MetaRollout(Wide(), k=2)), n=n, config=CollectConfig(**collect))


def test_each_number_of_an_action_is_held_by_itself():
    """The policy plays 2: what is not 2 is a random value, which lasts 4 steps on average."""
    n, hold, epsilon = 200, 4.0, 0.3
    _, _, collector = continuous(n, epsilon_start=epsilon, epsilon_end=epsilon, epsilon_hold=hold)
    collector._curiosity[:] = 1.0
    collector._curiosity[0] = 0.0
    collector._held = np.full((n, 2), np.nan)
    played = np.stack([collector._explore(np.full((n, 2), 2.0, np.float32)) for _ in range(1000)])[50:]
    assert played.dtype == np.float32
    assert (played[:, 0] == 2).all(), "it is not curious"
    random = played[:, 1:] != 2
    assert random.mean() == pytest.approx(epsilon, abs=0.01)
    assert random.all(axis=-1).mean() == pytest.approx(epsilon**2, abs=0.01), "independent"
    changes = (played[1:, 1:] != played[:-1, 1:])[random[:-1]]
    assert 1 / changes.mean() == pytest.approx(hold, rel=0.05)
    values = played[:, 1:][random]
    assert np.histogram(values, bins=4, range=(-1, 1), density=True)[0] == pytest.approx(0.5, abs=0.03)


def test_continuous_actions_reach_the_whole_range():
    _, model, collector = continuous(epsilon_steps=1000)
    rollouts = [r for r, _ in collector.collect(model, 400)]
    actions = np.concatenate([r.actions for r in rollouts])
    assert actions.dtype == np.float32
    assert actions.min() < -0.8
    assert actions.max() > 0.8
    assert np.abs(actions).max() <= 1.0


def test_other_autoreset_modes_are_refused():
    make = lambda: gym.make("MTPOPGym-v0", tasks=["MineSweeperEasy"])  # noqa: E731
    envs = SyncVectorEnv([make], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match="next-step"):
        Collector(envs, CollectConfig(), 0, CPU)


@pytest.mark.parametrize("batched", [True, False])
def test_a_rollout_comes_with_its_task(batched):
    """RepeatFirstEasy lasts 51 steps, MineSweeperEasy a dozen at most."""
    tasks = ["MineSweeperEasy", "RepeatFirstEasy"]
    envs = make_vec("MTPOPGym-v0", 6, tasks=tasks, k=1)
    if not batched:
        envs = SyncVectorEnv([lambda: gym.make("MTPOPGym-v0", tasks=tasks, k=1)] * 6)
    model = ActingModel(AgentModel(MODEL, LEARNING, envs.single_observation_space, envs.single_action_space))
    collector = Collector(envs, CollectConfig(epsilon_steps=1000), 0, CPU)
    indices = [list(load_suite("popgym").tasks).index(task) for task in tasks]
    seen = {len(rollout.rewards) > 40: rollout.task for rollout, _ in collector.collect(model, 3000)}
    assert seen == {False: indices[0], True: indices[1]}
    rollouts = [(len(rollout.rewards) > 40, rollout.task) for rollout, _ in collector.collect(model, 3000)]
    assert all(seen[long] == task for long, task in rollouts)
