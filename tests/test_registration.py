"""Suites from outside: registered by a row, or by Gymnasium's own `register`."""

import gymnasium as gym
import numpy as np
import pytest

import mtbench
from mtbench import registration
from mtbench.rollout import MetaRollout
from mtbench.vector import make_vec
from tests import toy

KWARGS = {"suite": "tests.toy:SUITE", "k": 2}


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """What a test registers is forgotten."""
    before = dict(gym.registry)
    yield
    for name in [name for name in gym.registry if name not in before]:
        del gym.registry[name]


def test_a_row_is_all_that_a_suite_needs():
    mtbench.register(mtbench.Row("Mine-v0", "walks", KWARGS))
    row = registration.find("Mine-v0")
    assert row == ("Mine-v0", "walks", KWARGS)
    assert (row.k, row.objective, row.suite) == (2, "k-episode", toy.SUITE)
    assert registration.rows()[-1] == row
    assert gym.make("Mine-v0", split="test").unwrapped.tasks == ["far"]
    assert gym.make_vec("Mine-v0", num_envs=3, autoreset_mode="Disabled").num_envs == 3


@pytest.mark.parametrize("entry_point", [MetaRollout, "mtbench.rollout:MetaRollout"])
def test_gymnasiums_own_register_will_do(entry_point):
    gym.register("Plain-v0", entry_point=entry_point, kwargs={"suite": "popgym", "k": 3})
    assert registration.find("Plain-v0") == ("Plain-v0", "", {"suite": "popgym", "k": 3})
    venv = make_vec("Plain-v0", 4, autoreset_mode="SameStep")
    assert type(venv).__name__ == "VectorMetaRollout"
    observations, _ = venv.reset(seed=5)
    assert np.array_equal(observations[2], gym.make("Plain-v0").reset(seed=7)[0])
    venv.close()


def test_other_environments_are_none_of_ours():
    with pytest.raises(ValueError, match="There is no environment 'CartPole-v1'"):
        registration.find("CartPole-v1")
    assert [row.id for row in registration.rows()] == [row.id for row in registration.TABLE]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "must name its suite"),
        ({"suite": toy.SUITE}, "must name its suite"),
        ({**KWARGS, "tasks": {"near"}}, "JSON-safe"),
    ],
)
def test_a_row_that_cannot_work_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        mtbench.register(mtbench.Row("Mine-v0", "", kwargs))
    assert "Mine-v0" not in gym.registry


def test_an_id_is_not_taken_over():
    mtbench.register(mtbench.Row("Mine-v0", "walks", KWARGS))
    mtbench.register(mtbench.Row("Mine-v0", "walks", KWARGS))
    for taken in ("Mine-v0", "MTPOPGym-v0", "CartPole-v1"):
        with pytest.raises(ValueError, match="registered already"):
            mtbench.register(mtbench.Row(taken, "walks", {**KWARGS, "k": 5}))


def test_a_missing_package_of_a_strangers_suite_is_named(monkeypatch):
    monkeypatch.setattr(toy.Toy, "packages", ("no_such_package",))
    with pytest.raises(gym.error.DependencyNotInstalled, match=r"Run: pip install no_such_package$"):
        MetaRollout(toy.SUITE)
