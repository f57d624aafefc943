"""The contract runs over every registered ID and split, alone and batched; a row in the table covers a new suite."""

import gymnasium as gym
import pytest

from mtbench.registration import TABLE
from mtbench.vector import engine_of

from .helpers import SHORT_GAMES
from .unbatched import Unbatched

IDS = [row.id for row in TABLE]


@pytest.fixture(params=IDS)
def env_id(request):
    return request.param


@pytest.fixture(params=["train", "test"])
def split(request):
    return request.param


@pytest.fixture(params=["single", "vector"])
def make(request, env_id):
    """Make the ID with further arguments, as one environment or as the only one of a batch; everything is closed."""
    made = []
    if request.param == "vector" and not engine_of(gym.spec(env_id).kwargs["suite"]):
        pytest.skip("no engine for this suite: gymnasium.vector.SyncVectorEnv steps what `single` is")

    def _make(**kwargs):
        games = SHORT_GAMES.get(gym.spec(env_id).kwargs["suite"])
        kwargs = {"tasks": games[kwargs.get("split", "train")], **kwargs} if games else kwargs
        batched = request.param == "vector" and "render_mode" not in kwargs  # pictures are drawn of single ones
        made.append(Unbatched(env_id, **kwargs) if batched else gym.make(env_id, **kwargs))
        return made[-1]

    yield _make
    for env in made:
        env.close()
