"""The fixtures of the contract tests: each ID, alone and as the only environment of a batch."""

import importlib.util
import random

import numpy as np
import pytest

from mtbench.testing.rendering import pytest_runtest_call  # noqa: F401 (a hook)
from mtbench.testing.seeding import repeatable  # noqa: F401 (for every test)

from . import IDS
from .helpers import made_of, nth, play, rollouts_of, short_rollouts, suite_of, tasks_of


@pytest.fixture(params=IDS, scope="session")
def env_id(request):
    return request.param


@pytest.fixture(params=["train", "test"])
def split(request):
    return request.param


@pytest.fixture(params=["single", "vector"], scope="session")
def batched(request, env_id):
    """Whether to test the ID on its engine, as the only environment of a batch."""
    if request.param == "vector" and importlib.util.find_spec("numba") is None:
        pytest.skip("engines need Numba")
    if request.param == "vector" and not suite_of(env_id).engine:
        pytest.skip("no engine for this suite: batches step single environments")
    return request.param == "vector"


@pytest.fixture
def make(env_id, batched):
    """Make the ID with further arguments, as one environment or as the only one of a batch. Closes all at the end."""
    made = []

    def _make(**kwargs):
        made.append(made_of(env_id, batched, **kwargs))
        return made[-1]

    yield _make
    for env in made:
        env.close()


@pytest.fixture(scope="session")
def rollouts(env_id, batched):
    """Whole rollouts with default arguments by seed, as `play` returns them. They are played once for all tests, to
    save time, so no test may change them."""
    return rollouts_of(env_id, batched)


@pytest.fixture(scope="session")
def replayed(env_id, batched, rollouts):
    """The same rollouts in a new environment, and the states of the global generators before and after."""
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    env = made_of(env_id, batched)
    again = {seed: play(env, seed) for seed in rollouts}
    env.close()
    return again, before, (random.getstate(), np.random.get_state())  # noqa: NPY002


@pytest.fixture(scope="session")
def pinned(env_id, batched):
    """A rollout of each task, with a pinned variant, as `play` returns it."""
    env = made_of(env_id, batched, **short_rollouts(env_id))
    options = {"variant": nth(env.unwrapped.split.variants, 3)}
    traces = {task: play(env, 1, options={"task": task, **options}) for task in tasks_of(env_id)}
    env.close()
    return traces
