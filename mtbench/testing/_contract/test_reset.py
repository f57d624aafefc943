"""docs/contract.md, points 1 and 2: what reset draws, and what a seed fixes."""

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np

from mtbench.suite import VariantRange

from . import MODULES, SHORT_GAMES
from .helpers import distinct, draws_only, equal, nth, play, rollouts_of, same_trace, short_rollouts, suite_of, tasks_of


def test_same_seed_and_actions_give_the_same_rollouts(rollouts, replayed):
    again, _, _ = replayed
    for seed, trace in rollouts.items():
        assert same_trace(trace, again[seed])


def test_seeds_differ(make):
    env = make()
    starts = {}
    for seed in range(20):
        trace = play(env, seed, max_steps=60)
        starts[env.unwrapped.task, env.unwrapped.variant] = trace
    assert len(starts) >= distinct(env, 20)
    first, *others = starts.values()
    assert sum(same_trace(first, other) for other in others) == 0


def test_unseeded_reset_after_a_seeded_one_is_determined(make, env_id):
    one, two = make(), make()
    for env in (one, two):
        env.reset(seed=5)
    steps = 60 if suite_of(env_id).name in SHORT_GAMES else 600
    for _ in range(3):
        assert same_trace(play(one, None, max_steps=steps), play(two, None, max_steps=steps))
        assert (one.unwrapped.task, one.unwrapped._variants) == (two.unwrapped.task, two.unwrapped._variants)


def test_actions_do_not_change_the_tasks_and_variants_that_come_next(make):
    """This also holds for actions that a game does not have and that are replaced at random."""

    def following(env, last_action):
        drawn = []
        env.reset(seed=5)
        for _ in range(4):
            for i in range(3):
                env.step(action_of(env, last_action and i))
            env.reset()
            drawn.append((env.unwrapped.task, env.unwrapped._variants))
        return drawn

    def action_of(env, last):
        space = env.action_space
        return (space.high if last else space.low) if hasattr(space, "high") else int(space.n - 1) * bool(last)

    assert following(make(), False) == following(make(), True)


def test_unseeded_resets_differ(make):
    env = draws_only(make())
    env.reset(seed=5)
    variants = []
    for _ in range(20):
        env.reset()
        variants.append((env.unwrapped.task, env.unwrapped.variant))
    assert len(set(variants)) >= distinct(env, 20)


_FINGERPRINT = """
import hashlib, gymnasium as gym, numpy as np
import {modules}
env = gym.make("{env_id}", tasks={tasks})
digest = hashlib.sha256()
for seed in {seeds}:
    env.action_space.seed(0)
    step = (env.reset(seed=seed)[0], 0.0, False, False)
    while True:
        obs, reward, terminated, truncated, *_ = step
        for part in obs.values() if isinstance(obs, dict) else [obs]:
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(repr((reward, terminated, truncated)).encode())
        if terminated or truncated:
            break
        step = env.step(env.action_space.sample())
print(digest.hexdigest())
"""


def test_another_process_gives_the_same_rollouts(env_id):
    """Also if strings have other hashes there: this process has random ones, or those of the salt 2."""
    here, kept = hashlib.sha256(), dict(itertools.islice(rollouts_of(env_id, batched=False).items(), 4))
    for trace in kept.values():
        for obs, *rest, _ in trace:
            for part in obs.values() if isinstance(obs, dict) else [obs]:
                here.update(np.ascontiguousarray(part).tobytes())
            here.update(repr(tuple(rest)).encode())
    code = _FINGERPRINT.format(modules=", ".join(MODULES), env_id=env_id, tasks=tasks_of(env_id), seeds=list(kept))
    salt = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": salt},  # all else alike: libraries round as variables tell them
    )
    assert there.stdout.strip() == here.hexdigest()


def test_global_generators_are_neither_used_nor_disturbed(replayed, rollouts):
    again, before, after = replayed
    assert before[0] == after[0]
    assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert all(same_trace(trace, again[seed]) for seed, trace in rollouts.items())


def test_tasks_are_drawn_uniformly(make, env_id, split):
    env = draws_only(make(split=split, tasks=None)).unwrapped
    env.reset(seed=0)
    names = suite_of(env_id).split(split).tasks
    draws = 60 * len(names)
    counts = dict.fromkeys(names, 0)
    for _ in range(draws):
        env.reset()
        counts[env.task] += 1
        assert env.variant in env.split.variants
    expected = draws / len(names)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    # Mean n - 1 and variance 2 (n - 1): six standard deviations.
    assert chi_square < len(names) - 1 + 6 * (2 * (len(names) - 1)) ** 0.5


def test_task_and_variant_can_be_pinned(make, env_id, pinned):
    """Whatever the environment has played before."""
    env = make(**short_rollouts(env_id)).unwrapped
    for task in reversed(tasks_of(env_id)):
        options = {"task": task, "variant": nth(env.split.variants, 3)}
        assert same_trace(play(env, 1, options=options), pinned[task])
        env.reset(seed=2, options=options)
        assert (env.task, env.variant) == (task, options["variant"])


def test_a_pinned_variant_fixes_every_attempt_whatever_the_seed(make, env_id):
    env = make().unwrapped
    for drawn_from in (env.split.variants, env.split.evaluation):
        seen = []
        for seed in (1, 2):
            env.reset(seed=seed, options={"task": tasks_of(env_id)[0], "variant": nth(drawn_from, 7)})
            seen.append(list(env._variants))
        assert seen[0] == seen[1]
        assert all(v in drawn_from for v in seen[0])


def test_pinned_rollouts_play_alike_from_any_seed(make, env_id):
    """The index 0 exists in every task, so nothing is replaced and nothing but the variant matters."""
    options = {"task": tasks_of(env_id)[0], "variant": nth(suite_of(env_id).split("train").variants, 7)}
    steps, traces = 600 if suite_of(env_id).name in SHORT_GAMES else 1600, []
    for seed in (1, 2):
        env = make()
        trace = [env.reset(seed=seed, options=options)[0]]
        over = False
        while not over and len(trace) < steps:  # Breakout waits for its first ball until the time limit
            obs, _, terminated, truncated, _ = env.step(np.zeros_like(env.action_space.sample()))
            over = terminated or truncated
            trace.append(obs)
        traces.append(trace)
    assert all(equal(a, b) for a, b in zip(*traces, strict=True))


def test_a_variant_can_be_pinned_for_each_attempt(make, env_id):
    """Also where attempts repeat one otherwise: the adaptation audit plays other variants."""
    env = make().unwrapped
    variants = [nth(env.split.evaluation, i) for i in range(env.k)]
    env.reset(seed=0, options={"variant": variants})
    assert env._variants == variants


def test_pinning_does_not_shift_later_draws(make, env_id):
    one, two = make().unwrapped, make().unwrapped
    one.reset(seed=3)
    two.reset(seed=3, options={"task": tasks_of(env_id)[0], "variant": nth(one.split.variants, 0)})
    one.reset()
    two.reset()
    assert (one.task, one.variant) == (two.task, two.variant)


def test_variants_of_training_and_evaluation_are_disjoint(env_id):
    """One exception: a train split may evaluate on exactly its training variants."""
    suite = suite_of(env_id)
    train, test = suite.splits["train"], suite.splits["test"]
    for other in (train.evaluation, test.variants, test.evaluation):
        assert disjoint(train.variants, other) or (other is train.evaluation and other == train.variants)
    assert disjoint(test.variants, test.evaluation)
    for extra in (split for name, split in suite.splits.items() if name not in ("train", "test")):
        assert disjoint(extra.variants, extra.evaluation)
        if extra.variants == train.variants:
            assert all(v in train.evaluation for v in extra.evaluation.values)
        else:
            assert all(v in test.variants or v in test.evaluation for v in extra.evaluation.values)
            assert disjoint(train.variants, extra.variants)


def disjoint(one, other):
    if isinstance(one, VariantRange) and isinstance(other, VariantRange):
        return one.stop <= other.start or other.stop <= one.start
    listed, against = (one, other) if isinstance(other, VariantRange) else (other, one)
    return not any(value in against for value in listed.values)
