"""Batches of BabyAI compared with Gymnasium's own vector environment, and the processes that draw layouts."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

pytest.importorskip("minigrid")
pytest.importorskip("numba")

from mtbench.suites.babyai.drawers import Drawers
from mtbench.suites.babyai.layouts import Layouts
from mtbench.testing._contract.batches import assert_equal_to_gymnasiums_own, assert_same_rollouts
from mtbench.vector.engine import cpus
from mtbench.vector.helpers import Helper

TASKS = ["BabyAI-GoToObjS6-v1", "BabyAI-PickupDist-v0", "BabyAI-UnlockPickup-v0"]


@pytest.fixture
def make():
    made = []

    def _make(num_envs=12, **kwargs):
        made.append(gym.make_vec("mtbench:MTBabyAI-v0", num_envs=num_envs, **{"tasks": TASKS, **kwargs}))
        return made[-1]

    yield _make
    for venv in made:
        venv.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_workers": 2},
        {"attempt_reset": "same-step", "k": 3, "objective": "k-shot", "max_steps": 120},
        {"expose_task_label": True, "max_steps": 40, "attempt_reset": "same-step"},
    ],
    ids=["defaults", "same-step", "labels"],
)
def test_equal_to_gymnasiums_own_vector_environment(make, mode, kwargs):
    assert_equal_to_gymnasiums_own(make, mode, kwargs, 250)


def test_seeds_and_options_as_gymnasiums_own(make):
    ours, theirs = make(4), make(4, vectorization_mode="sync")
    for options in (None, {"task": TASKS[1]}, {"variant": 7}):
        assert_same_rollouts(ours, theirs, 60, seed=[3, 2**40, 9, 3], options=options)


def test_layouts_from_other_processes_are_the_same():
    drawers = Drawers(2)
    wanted = [(task, seed) for seed in range(3) for task in TASKS]
    for future, (task, seed) in zip([drawers.draw(*one) for one in wanted], wanted, strict=True):
        world, mission = future.result()
        assert (world, mission) == Layouts(task).draw(seed)
    with pytest.raises(gym.error.NameNotFound):
        drawers.draw("BabyAI-NoSuchTask-v0", 0).result()
    drawers.close()


@pytest.mark.parametrize("kills", [1, 3])
def test_a_drawer_that_is_killed_is_replaced(monkeypatch, kills):
    killed = []

    class Mortal(Helper):
        def ask(self, request):
            if len(killed) < kills:
                killed.append(self.process)
                self.process.kill()
                self.process.wait()
            return super().ask(request)

    monkeypatch.setattr("mtbench.suites.babyai.drawers.Helper", Mortal)
    monkeypatch.setattr("mtbench.vector.helpers.WAITS", (0.0, 0.0, 0.0, 0.0))
    drawers = Drawers(1)
    for seed in (4, 5):
        assert drawers.draw(TASKS[0], seed).result() == Layouts(TASKS[0]).draw(seed)
    assert len(killed) == kills
    (running,) = drawers._processes._running
    assert running.process.poll() is None
    assert running.process not in killed
    drawers.close()
    assert running.process.poll() is not None


def test_drawers_that_are_always_killed_cost_time_only(monkeypatch):
    class Doomed(Helper):
        def __init__(self, module):
            super().__init__(module)
            self.process.kill()
            self.process.wait()

    monkeypatch.setattr("mtbench.suites.babyai.drawers.Helper", Doomed)
    monkeypatch.setattr("mtbench.vector.helpers.WAITS", (0.0, 0.0))
    drawers = Drawers(1)
    assert drawers.draw(TASKS[0], 4).result() == Layouts(TASKS[0]).draw(4)
    drawers.close()


def test_closing_leaves_no_process_behind(make):
    venv = make(16)
    venv.reset(seed=0)
    venv.step(np.zeros(16, dtype=int))
    running = [helper.process for helper in venv._engine._drawers._processes._running]
    assert len(running) == cpus()
    venv.close()
    assert all(process.poll() is not None for process in running)
