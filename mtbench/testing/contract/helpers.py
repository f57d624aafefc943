"""What the contract tests share."""

import numpy as np

from mtbench.registration import find
from mtbench.suite import VariantRange

from . import SHORT_GAMES


def seeds(env):
    """The seeds of the rollouts that a property is checked on.

    Six; where rollouts are long, 1,502 steps on Meta-World and about 700 on Atari, the first that draws each game.
    """
    if env.unwrapped.suite.name not in SHORT_GAMES:
        return list(range(6))
    first = {}
    for seed in range(100):
        env.reset(seed=seed)
        first.setdefault(env.unwrapped.task, seed)
    assert set(first) == set(env.unwrapped.tasks)
    return list(first.values())


def distinct(env, draws):
    """How many of some draws must differ at least: all of them, but where few variants come twice by chance."""
    return draws if len(env.unwrapped.split.variants) > 100 else draws * 3 // 4


def suite_of(env_id):
    return find(env_id).suite


def tasks_of(env_id, split="train"):
    suite = suite_of(env_id)
    return SHORT_GAMES[suite.name][split] if suite.name in SHORT_GAMES else list(suite.split(split).tasks)


def short_tasks(env_id, split="train"):
    """The argument that leaves out long games, if there are any."""
    return {"tasks": tasks_of(env_id, split)} if suite_of(env_id).name in SHORT_GAMES else {}


def nth(variants, n):
    """One of a split's variants."""
    return variants.start + n if isinstance(variants, VariantRange) else variants.values[n]


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
    """Split a next-step trace into the outer steps of each attempt, by the lengths its statistics report."""
    lengths = trace[-1][4]["rollout"]["lengths"]
    parts, at = [], 0
    for length in lengths:
        parts.append(trace[at : at + length + 1])
        at += length + 1
    assert at == len(trace), "lengths and the ignored steps account for every step"
    return parts
