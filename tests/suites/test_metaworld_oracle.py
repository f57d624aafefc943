"""Upstream's scripted policies have the same results in our environments as in upstream's."""

import pytest

pytest.importorskip("metaworld")

from metaworld.policies import ENV_POLICY_MAP

from mtbench.scoring.references import load_references
from mtbench.suites.metaworld import SUITES
from tests.paths import RESULTS, committed
from tests.suites.test_metaworld import scripted, upstream

IDS = {"ML45-v0": "metaworld-ml45", "ML10-v0": "metaworld-ml10"}
CASES = [(env_id, split) for env_id in IDS for split in ("train", "test")]


def episodes(env_id, split, agent):
    return committed(f"{env_id}/{split}/{agent}").episodes


@pytest.mark.parametrize(("env_id", "split"), CASES)
def test_the_committed_runs_are_what_is_shipped(env_id, split):
    tasks = SUITES[IDS[env_id]].splits[split].tasks
    references = load_references(IDS[env_id]).scales["oracle"]
    for agent, anchors in (("random", references.low), ("oracle", references.high)):
        played = episodes(env_id, split, agent)
        assert sorted(played["task"].unique()) == sorted(tasks)
        assert (played["length"] == 500).all()
        # The anchors' first rollouts are these. Of the random policy's, there are more.
        means = played.groupby("task")["return"].mean()
        errors = played.groupby("task")["return"].sem()
        for task in tasks:
            off = abs(anchors[task].value - means[task])
            assert off < (1e-4 if agent == "oracle" else 5 * errors[task] + 1e-4), task
        # A scripted policy has no memory: its three attempts at a goal are equal.
        if agent == "oracle":
            assert (played.groupby(["task", "rollout"])["return"].nunique() == 1).all()


@pytest.mark.parametrize(("env_id", "split"), CASES)
def test_scripted_policies_succeed(env_id, split):
    success = episodes(env_id, split, "oracle").groupby("task")["success"].mean()
    assert success.mean() >= 0.95
    below = set(success[success < 0.9].index)
    page = (RESULTS / "metaworld.md").read_text()
    assert all(f"{task.removesuffix('-v3')} {success[task]:.2f} ({env_id})" in page for task in below)


@pytest.mark.parametrize(("env_id", "split"), CASES)
def test_goals_that_they_miss_are_missed_in_upstreams_own_environments(env_id, split):
    played = episodes(env_id, split, "oracle")
    lost = played[~played["success"].astype(bool)]
    missed = set(zip(lost["task"], lost["variant"], strict=True))
    for skill, goal in sorted(missed)[::2]:  # half of them, for time
        env, policy = upstream(skill, goal), ENV_POLICY_MAP[skill]()
        observation, _ = env.reset()
        for _ in range(500):
            observation, *_, info = env.step(scripted(policy, env, observation))
            assert not info["success"], (skill, goal)
