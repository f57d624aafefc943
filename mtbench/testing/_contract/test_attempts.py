"""docs/contract.md, points 3 to 6, 8 and 9: attempts, the end, rewards and statistics."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mtbench.registration import find

from .helpers import attempts, equal, play, seeds, short_rollouts, tasks_of


def test_between_attempts_one_step_ignores_its_action(make, rollouts):
    """The same rollouts with other actions between the attempts continue in the same way."""
    env = make()
    for seed, trace in rollouts.items():
        parts = attempts(trace)
        assert all(part[0][1] == 0.0 for part in parts)
        ignored = np.cumsum([len(part) for part in parts])[:-1]
        if not len(ignored):
            continue  # one attempt
        env.action_space.seed(0)
        env.reset(seed=seed)
        for step in range(1, len(trace)):
            action = env.action_space.sample()
            if step in ignored:
                action = np.zeros_like(action) if isinstance(action, np.ndarray) else 0
            assert equal(env.step(action)[0], trace[step][0])


def test_only_the_last_step_ends_the_rollout(rollouts, env_id):
    for trace in rollouts.values():
        assert not any(terminated or truncated for _, _, terminated, truncated, _ in trace[:-1])
        assert trace[-1][2] is True
        assert trace[-1][3] is False
        rollout = trace[-1][4]["rollout"]
        assert len(trace) == 1 + rollout["lengths"].sum() + find(env_id).k - 1


def test_flags_and_rewards_are_python_scalars(rollouts):
    for trace in rollouts.values():
        for _, reward, terminated, truncated, _ in trace:
            assert type(reward) is float
            assert type(terminated) is bool
            assert type(truncated) is bool


def test_same_step_reset_folds_the_boundary(make, env_id, rollouts):
    env = make(attempt_reset="same-step")
    for seed, apart in rollouts.items():
        env.reset(seed=seed, options={"task": None, "variant": None})
        # Replay the actions of `apart` without the ignored ones.
        env.action_space.seed(0)
        actions = [env.action_space.sample() for _ in range(len(apart) - 1)]
        boundaries = np.cumsum([len(part) for part in attempts(apart)])[:-1]
        folded = [env.step(action) for i, action in enumerate(actions, start=1) if i not in boundaries]
        assert len(folded) == len(apart) - 1 - len(boundaries)
        ends = [step for step in folded if "final_attempt_obs" in step[4]]
        assert len(ends) == find(env_id).k - 1
        kept = [step for i, step in enumerate(apart[1:], start=1) if i not in boundaries]
        for ours, theirs in zip(folded, kept, strict=True):
            assert ours[1:4] == theirs[1:4]
        assert equal(folded[-1][4]["rollout"], apart[-1][4]["rollout"])
        for end in ends:
            assert env.observation_space.contains(end[4]["final_attempt_obs"])


@pytest.mark.parametrize("k", [1, 3])
def test_any_k(make, k):
    env = make(k=k)
    check_env(env.unwrapped, skip_render_check=True)
    rollout = play(env, 0)[-1][4]["rollout"]
    assert len(rollout["returns"]) == len(rollout["lengths"]) == k


def test_a_time_limit_truncates(make):
    env = make(max_steps=5)
    for seed in range(6):
        trace = play(env, seed)
        assert len(trace) <= 6
        if len(trace) == 6:
            assert trace[-1][2:4] == (False, True) or trace[-1][2:4] == (True, False)
            assert len(trace[-1][4]["rollout"]["returns"]) == env.unwrapped.k


@pytest.mark.parametrize("objective", ["k-shot", "k-episode"])
def test_what_is_paid(make, env_id, objective):
    env = make(objective=objective, k=2, reward_scales={}, clip_rewards=False, **short_rollouts(env_id))
    for seed in seeds(env):
        trace = play(env, seed)
        parts = attempts(trace)
        paid = [sum(step[1] for step in part[1:]) for part in parts]
        returns = trace[-1][4]["rollout"]["returns"]
        if objective == "k-shot":
            assert all(step[1] == 0.0 for part in parts[:-1] for step in part)
            assert paid[-1] == pytest.approx(returns[-1])
        else:
            assert paid == pytest.approx(returns)


def test_exploration_earns_a_return_that_is_not_paid(make, env_id):
    env = make(objective="k-shot", k=2, **short_rollouts(env_id))
    assert any(abs(play(env, seed)[-1][4]["rollout"]["returns"][0]) > 0 for seed in range(40))  # until one rollout has


def test_statistics_have_fixed_dtypes_and_no_label(rollouts, env_id):
    successes = {"successes"} if find(env_id).suite.has_success else set()
    for trace in rollouts.values():
        rollout = trace[-1][4]["rollout"]
        assert set(rollout) == {"returns", "lengths"} | successes
        assert rollout["returns"].dtype == np.float64
        assert rollout["lengths"].dtype == np.int64
        assert (rollout["lengths"] > 0).all()


def test_reward_scales_change_what_is_paid_and_nothing_else(make, env_id):
    task = tasks_of(env_id)[0]
    short = short_rollouts(env_id)
    plain, scaled = make(reward_scales={}, **short), make(reward_scales={task: 100.0}, **short)
    for name in tasks_of(env_id)[:3]:
        one, two = play(plain, 4, options={"task": name}), play(scaled, 4, options={"task": name})
        factor = 100.0 if name == task else 1.0
        for a, b in zip(one, two, strict=True):
            assert b[1] == pytest.approx(factor * a[1])
            assert equal(a[0], b[0])
        assert equal(one[-1][4], two[-1][4])
