"""Batches of Meta-World compared with Gymnasium's own vector environment, and the processes that play them."""

import copy
import signal

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

pytest.importorskip("metaworld")
pytest.importorskip("numba")

from mtbench.testing._contract.batches import assert_equal, assert_equal_to_gymnasiums_own, assert_same_rollouts
from mtbench.vector.helpers import Helper, HelperGone, retried

SKILLS = ["reach-v3", "drawer-open-v3", "push-v3"]


@pytest.fixture
def make():
    made = []

    def _make(**kwargs):
        made.append(gym.make_vec("mtbench:ML45-v0", **{"num_envs": 5, "tasks": SKILLS, "max_steps": 520, **kwargs}))
        return made[-1]

    yield _make
    for env in made:
        env.close()


@pytest.mark.parametrize(
    ("mode", "kwargs"),
    [
        (AutoresetMode.NEXT_STEP, {"num_workers": 2}),
        (AutoresetMode.SAME_STEP, {"num_workers": 3, "attempt_reset": "same-step"}),
        (AutoresetMode.DISABLED, {"num_workers": 1, "expose_task_label": True}),
    ],
    ids=["next-step", "same-step", "disabled"],
)
def test_equal_to_gymnasiums_own_vector_environment(make, mode, kwargs):
    assert_equal_to_gymnasiums_own(make, mode, kwargs, 1100)


def processes(venv):
    return [helper.process for helper in venv._engine._helpers.values()]


def step(venv, rng):
    return venv.step(rng.uniform(-1, 1, size=(5, 4)).astype(np.float32))


def test_a_killed_process_is_replaced_and_changes_no_result(make):
    one, other = make(num_workers=2), make(num_workers=1)
    assert_equal(one.reset(seed=3), other.reset(seed=3))
    for i in range(40):
        if i in (0, 20):
            processes(one)[i // 20].send_signal(signal.SIGKILL)
        assert_equal(step(one, np.random.default_rng(i)), step(other, np.random.default_rng(i)))


def test_a_process_whose_successors_are_killed_too_changes_no_result(make, monkeypatch):
    one, other = make(num_workers=2), make(num_workers=1)
    assert_equal(one.reset(seed=3), other.reset(seed=3))
    successors = []

    class Mortal(Helper):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            successors.append(self.process)
            if len(successors) < 4:
                self.process.kill()
                self.process.wait()

    monkeypatch.setattr("mtbench.suites.metaworld.engine.Helper", Mortal)
    monkeypatch.setattr("mtbench.vector.helpers.WAITS", (0.0,) * 4)
    for i in range(12):
        if i == 6:
            processes(one)[0].send_signal(signal.SIGKILL)
        assert_equal(step(one, np.random.default_rng(i)), step(other, np.random.default_rng(i)))
    assert len(successors) == 4


def test_processes_that_are_always_killed_are_given_up_with_advice(make, monkeypatch):
    class Doomed(Helper):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.process.kill()
            self.process.wait()

    monkeypatch.setattr("mtbench.suites.metaworld.engine.Helper", Doomed)
    monkeypatch.setattr("mtbench.vector.helpers.WAITS", (0.0,) * 5)
    with pytest.raises(RuntimeError, match=r"killed 5 times in a row. Is there enough memory\?"):
        make(num_workers=2).reset(seed=0)


def test_waits_before_new_attempts_grow(monkeypatch):
    monkeypatch.setattr("mtbench.vector.helpers.WAITS", (0.0, 0.2, 1.0))
    waited, attempts = [], []

    def killed_twice():
        attempts.append(None)
        if len(attempts) < 3:
            raise HelperGone
        return "answer"

    assert retried(killed_twice, waited.append) == "answer"
    assert waited == [0.0, 0.2, 1.0]
    attempts.clear()
    monkeypatch.setattr("mtbench.vector.helpers.WAITS", (0.0, 0.2))
    with pytest.raises(HelperGone):
        retried(killed_twice, waited.append)


def test_processes_end_with_the_environment(make):
    venv = make(num_workers=2)
    venv.reset(seed=0)
    started = processes(venv)
    assert len(started) == 2
    assert all(process.poll() is None for process in started)
    venv.close()
    assert all(process.poll() is not None for process in started)


def test_a_copy_goes_on_alike(make):
    venv = make(num_workers=2)
    venv.reset(seed=0)
    for i in range(30):
        step(venv, np.random.default_rng(i))
    other = copy.deepcopy(venv)
    for i in range(30):
        assert_equal(step(venv, np.random.default_rng(i)), step(other, np.random.default_rng(i)))
    other.close()


def test_what_a_process_raises_arrives(make):
    venv = make(num_workers=2)
    venv.reset(seed=0)
    venv._engine._slots["goal"][:] = 1000
    venv._engine._slots["begins"][:] = True
    with pytest.raises(IndexError, match="1000 is out of bounds"):
        venv._engine._play()
    venv.reset(seed=0)
    step(venv, np.random.default_rng(0))


@pytest.mark.parametrize("actions", [np.zeros((5, 3)), np.full((5, 4), 1.5), np.full((5, 4), np.nan), "left", None])
def test_wrong_actions_are_refused(make, actions):
    venv = make(num_workers=1)
    venv.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction, match=r"give numbers from -1.0 to 1.0 of shape \(5, 4\)"):
        venv.step(actions)


def test_pinned_tasks_and_goals(make):
    venv = make(num_workers=2)
    venv.reset(seed=0, options={"task": [SKILLS[i % 3] for i in range(5)], "variant": [[i] for i in range(5)]})
    assert [list(venv.suite.tasks)[i] for i in venv.task_index] == [SKILLS[i % 3] for i in range(5)]
    assert venv.variant.tolist() == list(range(5))
    assert assert_same_rollouts(venv, make(num_workers=1), 30, options={"task": SKILLS[0]}) >= 0
