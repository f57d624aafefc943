"""Helpers of the contract tests."""

import copy
import functools
from types import SimpleNamespace

import gymnasium as gym
import numpy as np

from mtbench.registration import find
from mtbench.rollout import MetaRollout
from mtbench.suite import VariantRange

from . import FEWER_GAMES, SECOND_ATTEMPT, SHORT_GAMES
from .unbatched import Unbatched


def seeds(env):
    """The seeds of the rollouts on which a property is checked.

    By default six seeds. Where not all games are tested, because rollouts are long (1,502 steps on Meta-World, about
    700 on Atari), for each game the first seed that draws it.
    """
    inner = env.unwrapped
    if inner.suite.name not in SHORT_GAMES and set(inner.tasks) == set(inner.split.tasks):
        return list(range(6))
    return list(_first_seeds(inner.suite, inner.split.name, tuple(inner.tasks)))


@functools.lru_cache
def _first_seeds(suite, split, tasks):
    env = draws_only(MetaRollout(suite, split=split, tasks=tasks))
    first = {}
    for seed in range(100):
        env.reset(seed=seed)
        first.setdefault(env.task, seed)
    assert set(first) == set(tasks)
    return tuple(first.values())


def draws_only(env):
    """Make a new environment begin no attempts. This takes most of the time of a reset, and tasks and variants are
    drawn before it."""
    inner = env.unwrapped
    if hasattr(inner, "venv"):
        engine = inner.venv._engine
        engine.start = engine.observe = lambda *_: None
    else:
        inner.suite, inner._observe = copy.copy(inner.suite), lambda _: None
        inner.suite.make_base, inner.suite.start = lambda *_: gym.Env(), lambda *_: None
        inner.suite.codec = lambda *_: SimpleNamespace(actions=None)
    return env


def distinct(env, draws):
    """The minimum number of different results among `draws`: all, or 3/4 if there are few variants, which repeat."""
    return draws if len(env.unwrapped.split.variants) > 100 else draws * 3 // 4


def suite_of(env_id):
    return find(env_id).suite


def tasks_of(env_id, split="train"):
    suite = suite_of(env_id)
    short = FEWER_GAMES.get(env_id) or SHORT_GAMES.get(suite.name)
    return short[split] if short else list(suite.split(split).tasks)


def short_tasks(env_id, split="train"):
    """The argument that leaves out long games, on suites that have some."""
    short = env_id in FEWER_GAMES or suite_of(env_id).name in SHORT_GAMES
    return {"tasks": tasks_of(env_id, split)} if short else {}


def short_rollouts(env_id):
    """The argument that ends rollouts in the second attempt, where that is long before their end. Fixtures play whole
    rollouts on all suites."""
    steps = SECOND_ATTEMPT.get(suite_of(env_id).name)
    return {"max_steps": steps} if steps else {}


def nth(variants, n):
    """One of a split's variants."""
    return variants.start + n if isinstance(variants, VariantRange) else variants.values[n]


def made_of(env_id, batched, **kwargs):
    kwargs = {**short_tasks(env_id, kwargs.get("split", "train")), **kwargs}
    if batched and "render_mode" not in kwargs:  # only single environments render
        return Unbatched(env_id, **kwargs)
    return gym.make(env_id, **kwargs)


@functools.lru_cache(maxsize=2)
def rollouts_of(env_id, batched):
    env = made_of(env_id, batched)
    played = {seed: play(env, seed) for seed in seeds(env)}
    env.close()
    return played


def play(env, seed, *, options=None, max_steps=100_000, action_seed=0):
    """One rollout under random actions: a list of (obs, reward, terminated, truncated, info), the reset first."""
    env.action_space.seed(action_seed)
    obs, info = env.reset(seed=seed, options=options)
    trace = [(obs, 0.0, False, False, info)]
    while not (trace[-1][2] or trace[-1][3]) and len(trace) <= max_steps:
        trace.append(env.step(env.action_space.sample()))
    return trace


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


def same_trace(first, second):
    return len(first) == len(second) and all(
        equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )


def attempts(trace):
    """Split a next-step trace into attempts, by the lengths in its statistics."""
    lengths = trace[-1][4]["rollout"]["lengths"]
    parts, at = [], 0
    for length in lengths:
        parts.append(trace[at : at + length + 1])
        at += length + 1
    assert at == len(trace), "lengths and the ignored steps account for every step"
    return parts
