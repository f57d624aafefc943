"""Unfinished rollouts can be played again in other environments, in every suite, and go on alike."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import SyncVectorEnv
from mtbench_agents.transformer.unfinished import play_again

from mtbench.registration import TABLE, find
from mtbench.rollout import MetaRollout
from mtbench.testing._contract import SHORT_GAMES
from mtbench.vector import make_vec, resuming
from tests import toy

N = 3


def played(envs, count, noted):
    """Play random actions; keep what a resumed program needs to know."""
    for _ in range(count):
        actions = envs.action_space.sample()
        observation, reward, terminated, truncated, _ = envs.step(actions)
        began, ended = noted["ended"], terminated | truncated
        for i in range(N):
            if began[i]:
                noted["actions"][i] = []
            else:
                noted["actions"][i].append(actions[i])
            if ended[i]:
                noted["drawn_from"][i] = noted["next"][i]
                noted["next"][i] = resuming.streams(envs, [i])[0]
        noted["ended"] = ended
        noted["seen"].append((observation, reward, ended))


def check(make, steps, further):
    first, second = make(), make()
    first.action_space.seed(3)
    seeds = [11, 12, 13]
    first.reset(seed=seeds)
    start = resuming.seeded_streams(seeds)
    noted = {"ended": np.zeros(N, dtype=bool), "actions": [[] for _ in range(N)], "seen": []}
    noted |= {"drawn_from": start.copy(), "next": start.copy()}
    played(first, steps, noted)
    lengths = np.array([len(taken) for taken in noted["actions"]])
    actions = np.zeros((lengths.max(), *first.action_space.shape), first.action_space.dtype)
    for i, taken in enumerate(noted["actions"]):
        actions[: len(taken), i] = np.array(taken).reshape(len(taken), *actions.shape[2:])
    begun_from = np.where(noted["ended"][:, None], noted["drawn_from"], noted["next"])

    second.reset(seed=1)
    last = {}

    def on_step(rows, at, observation, reward, ended):
        last.update({int(i): (int(step), ended[i]) for i, step in zip(rows, at, strict=True)})

    play_again(second, begun_from, lengths, actions, on_step)
    assert last == {i: (lengths[i], noted["ended"][i]) for i in range(N)}
    first.action_space.seed(5)
    for _ in range(further):
        action = first.action_space.sample()
        one, two = first.step(action), second.step(action)
        for a, b in zip(one[:4], two[:4], strict=True):
            assert data_equivalence(a, b)
    first.close()
    second.close()
    return noted


@pytest.mark.parametrize("env_id", {row.kwargs["suite"]: row.id for row in TABLE}.values())
def test_rollouts_of_every_suite_can_be_played_again(env_id):
    suite = find(env_id).suite
    try:
        suite.require_packages()
    except gym.error.DependencyNotInstalled as error:
        pytest.skip(str(error))
    games = SHORT_GAMES.get(suite.name, {}).get("train")
    check(lambda: make_vec(env_id, N, tasks=games, num_workers=1, max_steps=60), 137, 70)


@pytest.mark.parametrize("steps", [0, 1, 20, 21, 22, 23, 200])
def test_rollouts_of_a_suite_without_an_engine_can_be_played_again(steps):
    noted = check(lambda: SyncVectorEnv([lambda: MetaRollout(toy.SUITE, k=2)] * N), steps, 50)
    assert steps < 100 or any(ended.any() for _, _, ended in noted["seen"])


def test_streams_are_read_and_set_alike_with_and_without_an_engine():
    make = lambda: gym.make("MTPOPGym-v0")  # noqa: E731
    for envs in (make_vec("MTPOPGym-v0", N), SyncVectorEnv([make] * N)):
        envs.reset(seed=[4, 5, 6])
        before = resuming.streams(envs, [0, 1, 2])
        one, _ = envs.reset()
        assert not np.array_equal(resuming.streams(envs, [0, 1, 2]), before)
        resuming.set_streams(envs, [2, 0, 1], before[[2, 0, 1]])
        two, _ = envs.reset()
        assert np.array_equal(one, two)
    with pytest.raises(ValueError, match="shorter"):
        resuming.set_streams(envs, [0, 1], before[:1])
