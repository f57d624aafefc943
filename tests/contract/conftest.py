"""The contract runs over every registered ID and split; a new suite is covered by its row in the table."""

import gymnasium as gym
import pytest

from mtbench.registration import TABLE

IDS = [row.id for row in TABLE]


@pytest.fixture(params=IDS)
def env_id(request):
    return request.param


@pytest.fixture(params=["train", "test"])
def split(request):
    return request.param


@pytest.fixture
def make(env_id):
    """Make the ID with further arguments; everything made is closed."""
    made = []

    def _make(**kwargs):
        made.append(gym.make(env_id, **kwargs))
        return made[-1]

    yield _make
    for env in made:
        env.close()
