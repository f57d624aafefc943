"""Rules of the core that no other test holds by itself: each test fails if its rule is turned around in the code.

Golden traces notice most of these changes too, but they do not say which rule was broken.
"""

import hashlib
import importlib
import itertools

import gymnasium as gym
import numpy as np
import pytest

from mtbench.evaluation import evaluate
from mtbench.records import RecordError, write_run
from mtbench.rollout import MetaRollout
from mtbench.suite import VariantList, VariantRange, load_suite
from mtbench.testing._contract.unbatched import Unbatched
from tests import toy

MAKE = [gym.make, Unbatched]
POPGYM = "MTPOPGym-v0"


# ---- successes ----


class Touch(toy.Toy):
    """Success is being at the goal, and the walk goes on behind it."""

    def success(self, reward, info):
        return info["touches"]


class WalkOn(toy.Walk):
    def step(self, action):
        obs, reward, *_ = super().step(action)
        return obs, reward, False, self.steps == 8, {"touches": self.place == self.goal}


def test_a_success_is_not_lost_in_later_steps(monkeypatch):
    monkeypatch.setattr(toy, "Walk", WalkOn)
    env = MetaRollout(Touch(), k=2)
    env.reset(seed=0, options={"variant": 1})  # the goal is at 2
    info, forward, still = {}, np.ones(1, np.float32), np.zeros(1, np.float32)
    touched = []
    for action in [forward] * 8 + [still] * 9:
        *_, info = env.step(action)
        touched.append(env.base.place == env.base.goal)
    assert touched.count(True) == 1, "the second of many steps"
    assert info["rollout"]["successes"].tolist() == [True, False]


def test_a_success_is_not_lost_in_later_steps_of_a_batch():
    pytest.importorskip("numba")
    from mtbench.vector import loops
    from mtbench.vector.engine import PROGRESS

    progress, successes = np.zeros(3, PROGRESS), np.zeros((3, 2), dtype=np.bool_)
    played = np.array([0, 0, -1])
    for elapsed, success in enumerate([[False, True, True], [False, False, True], [False, False, False]]):
        progress["elapsed"] = elapsed
        loops.record_success(0, 3, progress, played, np.array(success), successes)
    assert successes.tolist() == [[False, False], [True, False], [False, False]]


# ---- rewards ----


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("scale", [510.0, 0.1])
def test_rewards_are_clipped_before_they_are_scaled(make, scale):
    """RepeatFirstEasy pays plus or minus 1 / 51 a step: scaled first, 10 would be clipped to 1."""
    task = "RepeatFirstEasy"
    env = make(POPGYM, tasks=[task], objective="k-episode", clip_rewards=True, reward_scales={task: scale})
    env.reset(seed=0)
    paid = {abs(env.step(action % 4)[1]) for action in range(40)}
    assert max(paid) == pytest.approx(scale / 51)


def test_a_large_reward_is_clipped_and_then_scaled():
    env = MetaRollout(toy.SUITE, clip_rewards=True, reward_scales={"near": 0.5})
    env.reset(seed=0, options={"variant": 4})
    step = env.base.step
    for true, paid in ((3.0, 0.5), (-3.0, -0.5), (0.5, 0.25)):
        env.base.step = lambda action, true=true: (step(action)[0], true, False, False, {"there": False})
        assert env.step(np.zeros(1, np.float32))[1] == paid


def test_a_task_that_is_not_named_keeps_its_rewards():
    kwargs = {"tasks": ["RepeatFirstEasy"], "objective": "k-episode"}
    plain, env = gym.make(POPGYM, **kwargs), gym.make(POPGYM, reward_scales={"MineSweeperEasy": 3.0}, **kwargs)
    plain.reset(seed=0)
    env.reset(seed=0)
    rewards = [(plain.step(i % 4)[1], env.step(i % 4)[1]) for i in range(40)]
    assert all(one == other for one, other in rewards)
    assert any(one != 0 for one, _ in rewards)


# ---- variants ----


def test_a_range_is_drawn_from_its_first_to_its_last_variant():
    rng = np.random.default_rng(0)
    assert set(VariantRange(3, 6).sample(rng, 300)) == {3, 4, 5}
    assert set(VariantRange(7, 8).sample(rng, 10)) == {7}
    assert set(VariantList((2, 9, 4)).sample(rng, 300)) == {2, 9, 4}
    assert all(type(variant) is int for variant in VariantRange(3, 6).sample(rng, 3))


def test_a_range_holds_its_first_variant_and_not_its_stop():
    variants = VariantRange(3, 6)
    assert [v for v in range(10) if v in variants] == [3, 4, 5]
    assert len(variants) == 3


CART = "PositionOnlyCartPoleEasy"  # its first observation is different for every variant


@pytest.mark.parametrize("make", MAKE)
def test_each_attempt_plays_its_own_variant_where_they_are_new(make):
    """Attempt i begins with what a rollout begins with whose first variant is the i-th."""
    env = make(POPGYM, tasks=[CART], k=3)
    variants = [5, 6, 9]
    begins = [env.reset(options={"variant": [variant] * 3})[0][:2].tolist() for variant in variants]
    assert begins[0] != begins[1] != begins[2]
    assert first_observations(env, {"variant": variants}) == (begins, variants)


@pytest.mark.parametrize("make", MAKE)
def test_drawn_variants_are_played_one_in_each_attempt(make):
    env = make(POPGYM, tasks=[CART], k=3)
    begins, variants = first_observations(env, None)
    assert len(set(variants)) == 3
    assert begins == [env.reset(options={"variant": [variant] * 3})[0][:2].tolist() for variant in variants]


def first_observations(env, options):
    """Of every attempt of one rollout, and the variants that the environment says it plays."""
    obs, _ = env.reset(seed=0, options=options)
    shown, variants = [obs[:2].tolist()], [env.unwrapped.variant]
    over, attempt = False, obs[27]
    while not over:
        obs, _, over, _, _ = env.step(0)
        if obs[27] != attempt:
            attempt = obs[27]
            shown.append(obs[:2].tolist())
            variants.append(env.unwrapped.variant)
    return shown, variants


# The variants that rollouts draw, those of evaluation, and those of validation if any, of every split of every suite.
# A number that changes here changes what every agent meets: it needs a new version of the IDs. Lists are given by their
# length and SHA-256.
_SEEDS = {
    "train": ((0, 536_870_912), (536_870_912, 805_306_368), (805_306_368, 1_073_741_824)),
    "test": ((1_073_741_824, 1_610_612_736), (1_610_612_736, 2_147_483_648)),
}
_LEVELS = {
    "train": ((0, 2000), (0, 2000), (0, 2000)),
    "test": ((2000, 1_073_741_824), (1_073_741_824, 2_147_483_646)),
}
_GOALS = {"train": ((0, 50), (50, 100), (100, 150)), "test": ((100, 150), (150, 200))}
RANGES = {
    "popgym": _SEEDS,
    "atari": _SEEDS,
    "babyai": {
        "train": ((0, 5001), (5001, 250_000), (250_000, 300_000)),
        "test": ((300_000, 600_000), (600_000, 1_000_001)),
        "train-distinct": ((0, 5001), (500, "6b8e73f512545456"), (250_000, 300_000)),
    },
    "metaworld-ml45": _GOALS,
    "metaworld-ml10": _GOALS,
    "procgen-easy": _LEVELS | {"test-distinct": ((500, "dd489feac9ea22ff"), (500, "667a2562009a24d0"))},
    "procgen-hard": _LEVELS | {"test-distinct": ((500, "c86fba6a422b74fa"), (500, "22f49ebe3be9b56d"))},
    "procgen-memory": _LEVELS | {"test-distinct": ((500, "0024ee7d1a5611ee"), (500, "fd78aabaa7a4c850"))},
    "procgen-memory-hard": _LEVELS | {"test-distinct": ((500, "36468f1fefada996"), (500, "76759c6c12306cec"))},
}


@pytest.mark.parametrize("name", RANGES)
def test_variants_of_every_split_are_these(name):
    splits = load_suite(name).splits
    assert {split: tuple(map(numbers, each.parts)) for split, each in splits.items()} == RANGES[name]


def numbers(variants):
    if isinstance(variants, VariantRange):
        return variants.start, variants.stop
    return len(variants), hashlib.sha256(repr(variants.values).encode()).hexdigest()[:16]


def test_every_suite_is_in_the_table():
    from mtbench.registration import TABLE

    folders = {row.suite.extra for row in TABLE}
    suites = {name for folder in folders for name in importlib.import_module(f"mtbench.suites.{folder}").SUITES}
    assert suites == set(RANGES)


# ---- actions ----


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("attempt_reset", ["next-step", "same-step"])
def test_an_action_the_game_does_not_have_is_marked_at_the_next_observation(make, attempt_reset):
    """CartPole has the actions 0 and 1; channel 28 says whether the previous action was one of them."""
    env = make(POPGYM, tasks=[CART], k=2, attempt_reset=attempt_reset)
    obs, _ = env.reset(seed=0)
    assert obs[28] == 1.0, "before any action"
    over, attempt, marks = False, 0.0, []
    actions = itertools.cycle([0, 2, 1, 26])
    while not over:
        action = next(actions)
        obs, _, over, _, _ = env.step(action)
        between = obs[27] != attempt and attempt_reset == "next-step"
        attempt = obs[27]
        marks.append((between, action, obs[28]))
    assert all(mark == float(between or action < 2) for between, action, mark in marks)
    assert {mark for *_, mark in marks} == {0.0, 1.0}
    assert env.reset()[0][28] == 1.0, "a new rollout"


def test_an_action_the_game_does_not_have_is_replaced_by_any_that_it_has():
    env = gym.make(POPGYM, tasks=[CART], objective="k-episode").unwrapped
    played = []
    for seed in range(5):
        env.reset(seed=seed)
        step = env.base.step
        env.base.step = lambda action, step=step: (played.append(action), step(action))[1]
        over = False
        while not over:
            *_, over, _, _ = env.step(26)
        env.base.step = step
    assert set(played) == {0, 1}
    assert 0.2 < np.mean(played) < 0.8


# ---- records ----


def test_a_negative_length_is_refused(tmp_path):
    run = evaluate(POPGYM, "random", tmp_path / "run", rollouts_per_task=1, env_kwargs={"tasks": ["MineSweeperEasy"]})
    damaged = run.episodes.copy()
    damaged.loc[1, "length"] = -1
    with pytest.raises(RecordError, match="length"):
        write_run(tmp_path / "damaged", damaged, run.manifest)
