"""The fixtures of the contract tests: each ID, alone and as the only environment of a batch."""

import gymnasium as gym
import pytest

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
    """Whether an engine plays the ID, as the only environment of a batch."""
    if request.param == "vector" and not suite_of(env_id).engine:
        pytest.skip("no engine for this suite: gymnasium.vector.SyncVectorEnv steps what `single` is")
    return request.param == "vector"


@pytest.fixture
def make(env_id, batched):
    """Make the ID with further arguments, as one environment or as the only one of a batch; everything is closed."""
    made = []

    def _make(**kwargs):
        made.append(made_of(env_id, batched, **kwargs))
        return made[-1]

    yield _make
    for env in made:
        env.close()


@pytest.fixture(scope="session")
def rollouts(env_id, batched):
    """Whole rollouts with default arguments by seed, as `play` returns them. Many tests read them and none edits them:
    playing them once for all is what keeps the contract fast."""
    env = made_of(env_id, batched)
    played = {seed: play(env, seed) for seed in seeds(env)}
    env.close()
    return played


def made_of(env_id, batched, **kwargs):
    kwargs = {**short_tasks(env_id, kwargs.get("split", "train")), **kwargs}
    if batched and "render_mode" not in kwargs:  # only a single environment draws pictures
        return Unbatched(env_id, **kwargs)
    return gym.make(env_id, **kwargs)
