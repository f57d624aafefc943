"""Atari beside the ALE's own Gymnasium environment, and OpenCV's resize."""

import numpy as np
import pytest

pytest.importorskip("ale_py")

from mtbench.rollout import MetaRollout
from mtbench.suites.atari import FEWER_ACTIONS, OTHER_GAMES, PAPER_GAMES, SUITE, TASKS, count_actions
from mtbench.suites.atari.engine import Console
from mtbench.suites.atari.game import AtariGame, SeededStart
from mtbench.suites.atari.resize import area_weights, shrink


class SeededLikeUs:
    """Upstream's environment, whose emulator is seeded with the number itself."""

    def __init__(self, game):
        from ale_py.env import AtariEnv

        self.env = AtariEnv(game, frameskip=4, repeat_action_probability=0.25, full_action_space=True)

    def reset(self, seed):
        self.env.ale.setInt("random_seed", seed)
        self.env.load_game()
        return self.env.reset()[0]


@pytest.mark.parametrize("game", ["pong", "ms_pacman", "qbert"])
def test_equal_to_the_v5_environment_and_a_resize(game):
    cv2 = pytest.importorskip("cv2")
    ours, theirs = AtariGame(game), SeededLikeUs(game)

    def resized(screen):
        return cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA).astype(int)

    rng = np.random.default_rng(0)
    for seed in (3, 4):
        frame, _ = ours.reset(seed=seed)
        assert np.abs(frame - resized(theirs.reset(seed))).max() <= 1  # two builds of OpenCV round in their own way
        for _ in range(150):
            action = int(rng.integers(18))
            frame, points, terminated, truncated, _ = ours.step(action)
            screen, *rest, _ = theirs.env.step(action)
            assert [points, terminated, truncated] == rest
            if terminated:
                break
            assert np.abs(frame - resized(screen)).max() <= 1


def test_sticky_actions_follow_from_the_variant():
    env = MetaRollout(SUITE, tasks=["breakout"])

    def trace(variant):
        frames = [env.reset(options={"variant": variant})[0]]
        frames += [env.step(action)[0] for action in [1, 3, 4] * 30]
        return np.stack(frames)

    first = trace(5)
    assert np.array_equal(first, trace(5))
    assert not np.array_equal(first, trace(6))


def test_clipping_changes_what_is_paid_and_no_statistic():
    plain, clipped = (MetaRollout(SUITE, tasks=["ms_pacman"], clip_rewards=clip) for clip in (False, True))
    rng = np.random.default_rng(0)
    for env in (plain, clipped):
        env.reset(seed=0)
    over, paid = False, []
    while not over:
        action = int(rng.integers(18))
        one, two = plain.step(action), clipped.step(action)
        assert two[1] == np.clip(one[1], -1, 1)
        paid.append(one[1])
        over = one[2] or one[3]
    assert max(paid) > 1
    assert one[4]["rollout"]["returns"] == two[4]["rollout"]["returns"] == sum(paid)


def test_the_games_are_those_the_wheel_ships_for_one_player():
    from ale_py import roms

    assert set(roms.get_all_rom_ids()) - set(TASKS) == {"combat", "joust", "maze_craze", "warlords"}
    assert set(TASKS) <= set(roms.get_all_rom_ids())
    assert not set(PAPER_GAMES) & set(OTHER_GAMES)


@pytest.mark.parametrize("game", [*FEWER_ACTIONS, "pong", "montezuma_revenge"])
def test_actions_are_counted_right(game):
    assert Console(game).count_actions() == count_actions(game)


def test_actions_a_game_lacks_are_replaced():
    env = MetaRollout(SUITE, tasks=["skiing"])
    env.reset(seed=0)
    for action in range(18):
        env.step(action)
        assert env._progress.action_valid == (action < 9)


# double_dunk and berzerk draw while they load; qbert leaves a frame half drawn; atlantis2 has 250 lines.
@pytest.mark.parametrize("game", ["breakout", "qbert", "double_dunk", "berzerk", "atlantis2"])
def test_games_that_were_played_begin_like_new_ones_on_the_vector_interface(game):
    ours, theirs = AtariGame(game), Console(game)
    rng = np.random.default_rng(0)
    for seed in (5, 2**31 - 1, 5):
        frame, first = ours.reset(seed=seed)[0], theirs.reset(seed)
        assert np.array_equal(frame, first)
        for _ in range(300):  # to the end of some
            action = int(rng.integers(18))
            theirs.send(action)
            frame, *rest, _ = ours.step(action)
            their_frame, *their_rest = theirs.receive()
            assert np.array_equal(frame, their_frame)
            assert rest == their_rest
            if rest[1]:
                break


def test_an_unknown_layout_of_saved_states_is_not_written_into():
    start = AtariGame("pong")._start
    assert start.possible
    assert not SeededStart(start.of(1)).possible  # another seed than it should be
    assert not SeededStart(b"x" * 60).possible


def test_a_game_starts_alike_where_saved_states_are_of_no_use():
    ours, plain = AtariGame("pong"), AtariGame("pong")
    plain._start.possible = False
    for seed in (1, 2):
        assert np.array_equal(ours.reset(seed=seed)[0], plain.reset(seed=seed)[0])
        for action in [*range(18)] * 3:
            assert np.array_equal(ours.step(action)[0], plain.step(action)[0])


@pytest.mark.parametrize("lines", [210, 250])
def test_shrinking_is_opencvs(lines):
    cv2 = pytest.importorskip("cv2")
    screen = np.random.default_rng(0).integers(0, 256, size=(lines, 160, 3), dtype=np.uint8)
    screen[1::7] = screen[::7][: len(screen[1::7])]
    out = np.empty((84, 84, 3), dtype=np.uint8)
    shrink(screen.reshape(lines, -1), out.reshape(84, -1), *area_weights(160, 84), *area_weights(lines, 84))
    expected = cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA)
    difference = np.abs(out.astype(int) - expected)
    assert difference.max() <= 1  # two builds of OpenCV round in their own way
    assert (difference == 0).mean() > 0.99


def test_pictures_show_the_console_at_full_size():
    cv2 = pytest.importorskip("cv2")
    base = AtariGame("pong")
    frame, _ = base.reset(seed=1)
    for step in range(30):
        screen = base.screen()
        assert screen.shape == (210, 160, 3)
        assert np.abs(cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA).astype(int) - frame).max() <= 1
        frame, *_ = base.step(step % 18)
    env = MetaRollout(SUITE, tasks=["atlantis2"], render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == SUITE.frame_shape
