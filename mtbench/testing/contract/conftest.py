"""The fixtures of the contract tests: each ID, alone and as the only environment of a batch."""

import importlib.util

import gymnasium as gym
import pytest

from mtbench.testing.rendering import pytest_runtest_call  # noqa: F401 (a hook)

from . import IDS
from .helpers import play, seeds, short_tasks, suite_of
from .unbatched import Unbatched


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
    env = made_of(env_id, batched)
    played = {seed: play(env, seed) for seed in seeds(env)}
    env.close()
    return played


def made_of(env_id, batched, **kwargs):
    kwargs = {**short_tasks(env_id, kwargs.get("split", "train")), **kwargs}
    if batched and "render_mode" not in kwargs:  # only single environments render
        return Unbatched(env_id, **kwargs)
    return gym.make(env_id, **kwargs)
