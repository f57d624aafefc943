"""Batches of Procgen and Atari compared with Gymnasium's own vector environment, infos included."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from mtbench.suites.procgen import core
from mtbench.testing._contract.batches import assert_equal_to_gymnasiums_own, assert_same_rollouts

pytest.importorskip("numba")

SHORT = {"MTProcgen-Easy-v0": ["leaper", "climber", "bossfight"], "MTAtari-v0": ["breakout", "chopper_command"]}
MODES = list(AutoresetMode)


@pytest.fixture(params=SHORT)
def make(request):
    if request.param == "MTAtari-v0":
        pytest.importorskip("ale_py")
    elif core.find_library() is None:
        pytest.skip("no wheel of Procgen is installed")
    made = []

    def _make(num_envs=4, **kwargs):
        kwargs = {"tasks": SHORT[request.param], **kwargs}
        made.append(gym.make_vec(f"mtbench:{request.param}", num_envs=num_envs, **kwargs))
        return made[-1]

    yield _make
    for venv in made:
        venv.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_workers": 2, "max_steps": 80},
        {"attempt_reset": "same-step", "max_steps": 60, "k": 3, "objective": "k-shot"},
        {"expose_task_label": True, "max_steps": 25, "clip_rewards": True, "attempt_reset": "same-step"},
    ],
    ids=["defaults", "same-step", "labels"],
)
def test_equal_to_gymnasiums_own_vector_environment(make, mode, kwargs):
    assert_equal_to_gymnasiums_own(make, mode, kwargs, lambda ours: 250 if ours.suite.extra == "procgen" else 85)


def test_seeds_and_options_as_gymnasiums_own(make):
    ours, theirs = make(), make(vectorization_mode="sync")
    task = ours.tasks[1]
    for options in (None, {"task": task}, {"variant": 7}):
        assert_same_rollouts(ours, theirs, 30, seed=[3, 2**40, 9, 3], options=options)
    assert_same_rollouts(ours, theirs, 30, seed=None)  # without seeds, both continue their streams


def test_listed_levels_are_drawn_alike(make):
    if make().suite.extra != "procgen":
        pytest.skip("only Procgen has this split")
    ours, theirs = make(split="test-distinct"), make(split="test-distinct", vectorization_mode="sync")
    assert_same_rollouts(ours, theirs, 30)
    assert all(level in ours.split.variants for level in ours.variant.tolist())


def test_frames_are_the_callers_to_keep(make):
    venv = make()
    kept = [venv.reset(seed=0)[0]]
    before = [kept[0].copy()]
    for action in range(15):
        kept.append(venv.step(np.full(4, action))[0])
        before.append(kept[-1].copy())
    assert all(np.array_equal(a, b) for a, b in zip(kept, before, strict=True))
