"""Procgen compared with the bare core, through gym3's own interface where it is installed."""

import gc
import sys

import gymnasium as gym
import numpy as np
import pytest

import mtbench.suites.procgen as procgen
from mtbench.rollout import MetaRollout
from mtbench.suite import Progress
from mtbench.suites.procgen import GAMES, MEMORY_GAMES, SUITES, core

pytestmark = pytest.mark.skipif(core.find_library() is None, reason="no wheel of Procgen is installed")

BOTH_MODES = [(game, mode) for game in GAMES for mode in ("easy", "memory" if game in MEMORY_GAMES else "hard")]


def suite_of(mode):
    return SUITES["procgen-easy" if mode == "easy" else "procgen-memory-hard"]


def without_box(frame):
    frame = frame.copy()
    frame[1:5, 1:5] = 0
    return frame


@pytest.fixture(scope="module")
def upstream():
    """gym3's environment."""
    pytest.importorskip("gym3")
    try:
        from procgen.env import ProcgenGym3Env
    except ImportError:
        pytest.skip("gym3's interface needs the packages around the core")
    return ProcgenGym3Env


@pytest.mark.parametrize(("game", "mode"), BOTH_MODES)
def test_both_attempts_equal_the_bare_core_at_that_level(game, mode, upstream):
    """The first frame and 200 steps under fixed actions equal gym3's in both attempts, without the box.

    The first actions are not directions, because a game may remember the last direction of another attempt.
    """
    level = 1234
    env = MetaRollout(suite_of(mode), tasks=[game], k=2)
    options = {"start_level": level, "num_levels": 1, "distribution_mode": mode, "num_threads": 0}
    bare = upstream(1, game, rand_seed=7, **options)
    actions = np.append(np.arange(9, 15), np.random.default_rng(1).integers(core.NUM_ACTIONS, size=194))
    frame, _ = env.reset(options={"variant": level})
    for attempt in range(2):
        if attempt:
            while env.playing:  # go left until the first attempt ends
                frame, *_ = env.step(1)
            frame, *_ = env.step(0)
            bare = upstream(1, game, rand_seed=8, **options)
        assert np.array_equal(frame[1:5, 1:5], np.zeros((4, 4, 3))) == bool(attempt)
        _, theirs, _ = bare.observe()
        assert np.array_equal(without_box(frame), without_box(theirs["rgb"][0]))
        for action in actions:
            frame, reward, *_ = env.step(int(action))
            bare.act(np.array([action]))
            earned, theirs, first = bare.observe()
            assert reward == earned[0]
            assert env.playing != first[0]
            if first[0]:
                break
            assert np.array_equal(without_box(frame), without_box(theirs["rgb"][0]))
    env.close()


@pytest.mark.parametrize(("game", "mode"), BOTH_MODES)
def test_a_core_moved_to_a_level_plays_it_like_a_new_one(game, mode):
    rng = np.random.default_rng(0)
    moved = core.Buffers.new()
    mover = core.Core(game, mode, 777, moved)
    for level in (3, 4, 4, 5):
        for _ in range(30):  # leave traces of another level
            moved.action[0] = rng.integers(core.NUM_ACTIONS)
            mover.act()
        mover.begin(level)
        fresh = core.Buffers.new()
        new = core.Core(game, mode, level, fresh)
        assert np.array_equal(moved.frame, fresh.frame)
        for action in [*range(9, 15), *rng.integers(core.NUM_ACTIONS, size=100)]:
            moved.action[0] = fresh.action[0] = action
            mover.act(), new.act()
            assert np.array_equal(moved.frame, fresh.frame)
            assert (moved.reward[0], moved.over[0]) == (fresh.reward[0], fresh.over[0])
        new.close()
    mover.close()


@pytest.mark.parametrize(("game", "mode"), BOTH_MODES)
def test_levels_differ(game, mode):
    env = MetaRollout(suite_of(mode), tasks=[game])
    frames = {env.reset(options={"variant": level})[0].tobytes() for level in range(20)}
    assert len(frames) > 15
    env.close()


def test_the_last_frame_of_an_attempt_is_shown_again_and_is_not_the_next_ones():
    env = MetaRollout(SUITES["procgen-easy"], tasks=["leaper"], k=2)
    start, _ = env.reset(seed=0)
    frames = [start]
    while env.playing:
        frames.append(env.step(5)[0])
    assert np.array_equal(frames[-1], frames[-2])
    assert not np.array_equal(frames[-1], start)
    second = env.step(0)[0]
    assert np.array_equal(without_box(second), without_box(start))
    env.close()


def test_every_attempt_but_the_first_is_marked():
    env = MetaRollout(SUITES["procgen-easy"], tasks=["jumper"], k=3)
    frame, _ = env.reset(seed=0, options={"variant": 5})  # a level that ends at once
    over = False
    while not over:
        attempt = env._progress.attempt
        assert frame[1:5, 1:5].any() != bool(attempt)
        frame, _, over, *_ = env.step(0)
    env.close()


def test_marking_writes_into_no_buffer_of_the_core():
    env = MetaRollout(SUITES["procgen-easy"], tasks=["coinrun"], k=2)
    env.reset(seed=0)
    env._progress.attempt = 1
    marked = env.step(4)[0]
    assert not marked[1:5, 1:5].any()
    assert env.base._buffers.frame[1:5, 1:5].any()
    assert env.base._shown[1:5, 1:5].any()
    env.close()


@pytest.mark.parametrize(("game", "mode"), [("leaper", "easy"), ("maze", "memory"), ("jumper", "memory")])
def test_an_attempt_is_cut_off_by_the_core_where_the_suite_says(game, mode):
    task = suite_of(mode).tasks[game]
    base = suite_of(mode).make_base(task)
    for level in range(50):
        base.reset(seed=level)
        steps, over = 0, False
        while not over:
            _, _, terminated, truncated, _ = base.step(4)
            steps, over = steps + 1, terminated or truncated
        assert truncated == (steps == task.max_steps)
        if truncated:
            break
    else:
        pytest.fail("no level lasts to the limit without moving")
    base.close()


def test_ten_thousand_rollouts_leak_nothing():
    env = MetaRollout(SUITES["procgen-easy"], tasks=["coinrun", "ninja", "climber"], max_steps=1)

    def resident():
        gc.collect()
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096 / 2**20

    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    env.reset(seed=0)
    for _ in range(1000):
        env.reset()
    before = resident()
    for _ in range(9000):
        env.reset()
    assert resident() - before < 20  # a core is 0.1 MiB at least
    env.close()


def test_games_without_a_mode_are_refused_with_those_that_have_it():
    with pytest.raises(ValueError, match=r"no task 'coinrun'.*procgen-memory.*caveflyer, dodgeball, heist"):
        MetaRollout("procgen-memory", tasks=["coinrun"])
    with pytest.raises(ValueError, match=r"There is no suite 'procgen-extreme'.*procgen-easy"):
        MetaRollout("procgen-extreme")


def test_any_game_can_be_played_by_name():
    env = MetaRollout("procgen-easy", tasks=["heist"])
    env.reset(seed=0)
    assert env.task == "heist"
    env.close()


@pytest.mark.parametrize(
    ("python", "wheel"),
    [((3, 10), "procgen"), ((3, 11), "procgen-mirror"), ((3, 12), "procgen-mirror"), ((3, 13), "procgen-gym")],
)
def test_each_python_has_its_wheel(python, wheel):
    assert core.wheel_for(python) == wheel


def test_a_missing_wheel_is_named_with_both_ways_to_install_it(monkeypatch):
    monkeypatch.setattr(core, "find_library", lambda: None)
    with pytest.raises(Exception, match=r"pip install 'mtbench-rl\[procgen\]'.*pip install --no-deps procgen"):
        MetaRollout("procgen-easy")


def test_a_core_without_its_system_libraries_says_how_to_install_them(monkeypatch, tmp_path):
    monkeypatch.setattr(core, "require_library", lambda: tmp_path)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r"libenv.*apt install libgl1 libglib2.0-0"):
        core.library.__wrapped__()


def test_distinct_levels_are_test_levels_and_unlike_those_of_training():
    for suite in SUITES.values():
        split = suite.splits["test-distinct"]
        assert len(split.variants) == len(split.evaluation) == 500
        assert min(split.variants.values) >= procgen.TRAIN_LEVELS
    # Maze and coinrun repeat levels most.
    listed = SUITES["procgen-easy"].splits["test-distinct"].variants.values[:200]
    for game in ("maze", "coinrun"):
        seen = {_whole_level(game, level) for level in range(procgen.TRAIN_LEVELS)}
        assert not any(_whole_level(game, level) in seen for level in listed)


def _whole_level(game, level):
    buffers = core.Buffers.new()
    core.Core(game, "easy", level, buffers, centered=False).close()
    return buffers.frame.tobytes()


def test_frames_carry_progress_as_a_box_alone():
    codec = SUITES["procgen-easy"].codec(None, None)
    frame = np.full(core.FRAME, 200, np.uint8)
    one, two = codec.encode(frame, Progress(2)), codec.encode(frame, Progress(2, attempt=1))
    assert np.array_equal(one, frame)
    assert one is not frame
    changed = np.argwhere((two != frame).any(axis=-1))
    assert changed.min() == 1
    assert changed.max() == 4
    assert len(changed) == 16
