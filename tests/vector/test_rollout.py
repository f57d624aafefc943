"""The batched contract gives the same rollouts as the scalar one, for any batch, threads and mode."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from mtbench.testing._contract.batches import assert_equal, assert_same_rollouts

pytest.importorskip("numba")

ID = "mtbench:MTPOPGym-v0"
MODES = list(AutoresetMode)


@pytest.fixture
def make():
    made = []

    def _make(num_envs=4, **kwargs):
        made.append(gym.make_vec(ID, num_envs=num_envs, **kwargs))
        return made[-1]

    yield _make
    for venv in made:
        venv.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"k": 1, "objective": "k-episode", "reward_scales": {"MineSweeperEasy": 3.0}, "split": "test"},
        {"attempt_reset": "same-step", "max_steps": 60, "k": 3},
        {"expose_task_label": True, "max_steps": 25},
        {"tasks": ["MineSweeperEasy", "HigherLowerEasy"], "k": 4, "objective": "k-episode"},
    ],
    ids=["defaults", "one-attempt", "same-step", "labels", "two-tasks"],
)
def test_equal_to_gymnasiums_own_vector_environment(make, mode, kwargs):
    ours = make(27, autoreset_mode=mode, **kwargs)
    theirs = make(27, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **kwargs)
    assert type(ours).__name__ == "VectorMetaRollout"
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert assert_same_rollouts(ours, theirs, 250) > 5


def test_seeds_and_options_as_gymnasiums_own(make):
    ours, theirs = make(), make(vectorization_mode="sync")
    seeds = [3, 2**40, 9, 3]
    for options in (None, {"task": "HigherLowerEasy"}, {"variant": 7}, {"task": "MineSweeperEasy", "variant": [1, 2]}):
        assert_same_rollouts(ours, theirs, 120, seed=seeds, options=options)
    assert_same_rollouts(ours, theirs, 120, seed=None)  # without seeds, both continue their streams


def test_environments_do_not_depend_on_the_batch(make):
    """Environment i of 40 on 3 threads plays what environment 0 alone plays with its seed."""
    many, alone = make(40, num_workers=3), make(1)
    actions = np.random.default_rng(0).integers(27, size=(300, 40))
    whole = [many.reset(seed=100)[0], *(many.step(a)[0] for a in actions)]
    for i in (0, 17, 39):
        one = [alone.reset(seed=100 + i)[0], *(alone.step(a[i : i + 1])[0] for a in actions)]
        assert all(np.array_equal(w[i], o[0]) for w, o in zip(whole, one, strict=True))


def test_unseeded_batches_differ(make):
    starts = set()
    for venv in (make(8), make(8)):
        venv.reset()
        starts |= set(zip(venv.task_index.tolist(), venv.variant.tolist(), strict=True))
    assert len(starts) == 16


def test_arrays_are_the_callers_to_keep(make):
    venv = make()
    kept = [venv.reset(seed=0)[0]]
    before = [kept[0].copy()]
    for action in range(20):
        kept.append(venv.step(np.full(4, action))[0])
        before.append(kept[-1].copy())
    assert all(np.array_equal(a, b) for a, b in zip(kept, before, strict=True))
    assert len({id(array) for array in kept}) == len(kept)


def test_without_copies_one_array_serves_every_step(make):
    shared, own = make(copy=False), make()
    first, expected = shared.reset(seed=0)[0], own.reset(seed=0)[0]
    assert np.array_equal(first, expected)
    for action in range(20):
        assert shared.step(np.full(4, action))[0] is first
        assert np.array_equal(first, own.step(np.full(4, action))[0])


def test_privileged_arrays_and_pins(make):
    venv = make(3)
    names = list(venv.suite.tasks)
    tasks = ["MineSweeperEasy", "HigherLowerHard", "MineSweeperEasy"]
    variants = np.array([[1, 2], [3, 4], [5, 6]])
    venv.reset(seed=0, options={"task": tasks, "variant": variants})
    assert [names[i] for i in venv.task_index] == tasks
    assert venv.variant.tolist() == [1, 3, 5]
    singles = [gym.make(ID) for _ in tasks]
    for i, env in enumerate(singles):
        env.reset(seed=i, options={"task": tasks[i], "variant": variants[i].tolist()})
    rng = np.random.default_rng(0)
    for _ in range(10):
        actions = rng.integers(2, size=3)  # both games have these actions, so that no replacement is drawn
        batch = venv.step(actions)[0]
        for i, env in enumerate(singles):
            assert np.array_equal(batch[i], env.step(int(actions[i]))[0])
    venv.reset(options={"variant": np.array([[8], [9], [10]])})
    assert venv.variant.tolist() == [8, 9, 10]


def test_gymnasiums_vector_wrappers_fit(make):
    venv = gym.wrappers.vector.RecordEpisodeStatistics(make(8, tasks=["MineSweeperEasy"], objective="k-episode"))
    venv.reset(seed=0)
    ended = 0
    for _ in range(60):
        *_, infos = venv.step(venv.action_space.sample())
        if "episode" in infos:
            over = infos["_episode"]
            np.testing.assert_allclose(infos["episode"]["r"][over], infos["rollout"]["returns"][over].sum(axis=1))
            ended += over.sum()
    assert ended > 8
    lists = gym.wrappers.vector.DictInfoToList(make(3, max_steps=1))
    lists.reset(seed=0)
    assert [list(info) for info in lists.step([0, 0, 0])[4]] == [["rollout"]] * 3


def test_a_mask_resets_some_and_leaves_the_others(make):
    venv = make(autoreset_mode="Disabled")
    venv.reset(seed=0)
    before, *_ = venv.step(np.zeros(4, dtype=int))
    mask = np.array([True, False, True, False])
    after, _ = venv.reset(seed=[7, 7, 7, 7], options={"reset_mask": mask})
    assert np.array_equal(before[~mask], after[~mask])
    assert (after[mask, 26] == 0).all()
    assert venv.task_index[0] == venv.task_index[2]
    with pytest.raises(ValueError, match="array of 4 bools"):
        venv.reset(options={"reset_mask": np.zeros(4, dtype=bool)})
    with pytest.raises(ValueError, match="array of 4 bools"):
        venv.reset(options={"reset_mask": [True] * 4})


def test_a_refused_call_changes_nothing(make):
    ours, undisturbed = make(), make()
    for venv in (ours, undisturbed):
        venv.reset(seed=0)
    for actions in ([0, 27, 0, 0], [0, 0, -1, 0], [0.0] * 4, [0] * 3, "left", None):
        with pytest.raises(gym.error.InvalidAction):
            ours.step(actions)
    wrong = [{"task": ["nothing"] * 4}, {"task": ["MineSweeperEasy"]}, {"variant": [[1, 2, 3]] * 4}, {"tsak": 1}]
    for options, message in zip(wrong, ("There is no task", "pins 1", "Pin one", "Did you mean 'task'"), strict=True):
        with pytest.raises(ValueError, match=message):
            ours.reset(seed=3, options=options)
    with pytest.raises(ValueError, match="one for each of the 4"):
        ours.reset(seed=[1, 2])
    for _ in range(30):
        actions = ours.action_space.sample()
        assert_equal(ours.step(actions), undisturbed.step(actions))


def test_a_step_that_needs_a_reset_says_where(make):
    venv = make(2, autoreset_mode="Disabled", tasks=["MineSweeperEasy"], k=1)
    with pytest.raises(gym.error.ResetNeeded, match="no meta-rollout has begun"):
        venv.step([0, 0])
    venv.reset(seed=0)
    over = np.zeros(2, dtype=bool)
    while not over.any():
        _, _, terminated, truncated, _ = venv.step(venv.action_space.sample())
        over = terminated | truncated
    with pytest.raises(gym.error.ResetNeeded, match=f"environment {int(over.argmax())} is over"):
        venv.step([0, 0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_envs": 0}, "`num_envs` must be"),
        ({"num_workers": 0}, "`num_workers` must be"),
        ({"autoreset_mode": "next-step"}, "Did you mean 'NextStep'"),
        ({"k": 0}, "`k` must be"),
        ({"tasks": ["MineSweeperEasi"]}, "Did you mean 'MineSweeperEasy'"),
    ],
)
def test_a_wrong_argument_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make_vec(ID, **{"num_envs": 2, **kwargs})


def test_pictures_come_from_the_generic_path(make):
    venv = make(2, render_mode="rgb_array", autoreset_mode="SameStep")
    assert isinstance(venv, gym.vector.SyncVectorEnv)
    venv.reset(seed=0)
    assert [frame.shape for frame in venv.render()] == [venv.envs[0].suite.frame_shape] * 2


def test_without_numba_the_generic_path_plays_the_same_with_a_warning(make):
    code = f"""
import sys
sys.modules["numba"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else find(name, *rest)
import gymnasium as gym
venv = gym.make_vec("{ID}", num_envs=2)
print(type(venv).__name__, venv.reset(seed=1)[0].tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(" ", 1)[0] == "SyncVectorEnv"
    assert done.stdout.split(" ", 1)[1].strip() == str(make(2).reset(seed=1)[0].tolist())
    warnings = [line for line in done.stderr.splitlines() if "WARN: numba" in line]
    assert len(warnings) == 1
    assert "pip install" in warnings[0]
