"""docs/contract.md, points 7, 10 and 11: label hiding, spaces and rendering."""

import itertools

import numpy as np
from gymnasium.utils.env_checker import check_env

from . import SLOW_TO_DRAW
from .helpers import equal, made_of, play, short_rollouts, suite_of, tasks_of


def structure(value):
    """The keys, shapes and dtypes of an observation or info."""
    if isinstance(value, dict):
        return {key: structure(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str
    return type(value).__name__


def test_nothing_but_the_base_observation_separates_tasks(pinned):
    """Every step of every task has the same keys, shapes and dtypes, and no info but the closing statistics."""
    observations, infos = set(), set()
    for trace in pinned.values():
        for obs, _, terminated, truncated, info in trace:
            observations.add(repr(structure(obs)))
            infos.add((terminated or truncated, repr(structure(info))))
    assert len(observations) == 1
    assert {info for over, info in infos if not over} == {"{}"}
    assert len({info for over, info in infos if over}) == 1


def test_info_is_empty_but_for_statistics(rollouts):
    for trace in rollouts.values():
        assert all(step[4] == {} for step in trace[:-1])
        assert set(trace[-1][4]) == {"rollout"}


def test_spaces_do_not_depend_on_the_tasks_played(make, env_id):
    full = make()
    for task in tasks_of(env_id):
        one = make(tasks=[task])
        assert one.observation_space == full.observation_space
        assert one.action_space == full.action_space


def test_the_label_can_be_exposed(make, env_id):
    env = make(expose_task_label=True, **short_rollouts(env_id))
    check_env(env.unwrapped, skip_render_check=True)
    names = list(env.unwrapped.suite.tasks)
    for task in tasks_of(env_id)[:5]:
        for obs, _, _, _, info in play(env, 0, options={"task": task}):
            assert info["task"] == task
            assert info["task_index"] == names.index(task)
            label = obs["task"] if isinstance(obs, dict) else obs[-len(names) :]
            assert label.sum() == 1
            assert label[names.index(task)] == 1


def test_every_observation_is_in_the_space_and_its_own(make, rollouts):
    env = make()
    for trace in rollouts.values():
        seen = [obs for obs, *_ in trace]
        assert all(env.observation_space.contains(obs) for obs in seen)
        arrays = [part for obs in seen for part in (obs.values() if isinstance(obs, dict) else [obs])]
        assert len({id(array) for array in arrays}) == len(arrays)
        assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(arrays))


def test_frames_have_one_size_and_are_not_shared(env_id):
    """Only single environments render."""
    env = made_of(env_id, batched=False, render_mode="rgb_array")
    frames = []
    for task in tasks_of(env_id):
        env.reset(seed=0, options={"task": task})
        frames.append(env.render())
        env.step(env.action_space.sample())
        frames.append(env.render())
    assert {frame.shape for frame in frames} == {env.unwrapped.suite.frame_shape}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(frames))
    assert all(frame.std() > 5 for frame in frames), "something is drawn"
    env.close()


def test_rendering_changes_nothing(env_id):
    drawn, plain = made_of(env_id, batched=False, render_mode="rgb_array"), made_of(env_id, batched=False)
    drawn.action_space.seed(0)
    expected = play(plain, 3, max_steps=SLOW_TO_DRAW.get(suite_of(env_id).name, 100_000))
    drawn.reset(seed=3)
    for i, step in enumerate(expected[1:]):
        if i < 100 or i % 10 == 0:  # pictures take 30 times as long as steps
            drawn.render()
        assert equal(drawn.step(drawn.action_space.sample())[0], step[0])
    drawn.close()
    plain.close()
