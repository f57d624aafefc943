"""The strip under a film's frames: whose values, where, and how much of them is still to come."""

import numpy as np
import pytest

from mtbench.films import Trace, ValueStrip, film
from mtbench.play import Playthrough
from mtbench.rollout import MetaRollout
from tests.toy import Toy

BLUE, GREEN, ORANGE = (86, 180, 233), (0, 158, 115), (213, 94, 0)


class Walker:
    """Walks, and expects what is left to the goal of 1: it counts its steps."""

    def start(self, num_envs, seed, observation_space, action_space):
        self.plays = getattr(self, "plays", 0) + 1

    def act(self, observations, reset_mask):
        raise AssertionError("a film asks for the values too")

    def act_and_value(self, observations, reset_mask):
        return np.full((1, 1), 0.5, dtype=np.float32), 1.0 - observations[:, 0].astype(np.float64)


def of_colour(strip, colour):
    """Columns that show a colour."""
    return np.flatnonzero((np.abs(strip.astype(int) - colour).max(axis=-1) < 40).any(axis=0))


def test_a_film_of_a_policy_with_values_is_its_frames_over_strips():
    env, walker = MetaRollout(Toy(), k=2, render_mode="rgb_array"), Walker()
    played = Playthrough(env, walker, 0, {"variant": 5})
    frames = list(film(played))
    assert walker.plays == 2
    trace = played.trace
    assert len(frames) == played.steps + 1
    assert all(frame.shape == (8 + 96, 240, 3) for frame in frames)
    assert [int(frame[0, 120, 0]) for frame in frames[:3]] == [0, 1, 2]  # the toy renders its step
    assert trace.starts[0] == 0
    assert len(trace.starts) == 2
    assert len(trace.values) == len(trace.rewards) == played.steps
    assert trace.values[:2] == pytest.approx([1.0, 0.5])
    assert trace.values[trace.starts[1]] == pytest.approx(1.0)
    assert trace.returns == played.statistics["returns"].tolist()


def test_a_film_of_another_policy_is_its_frames_alone():
    env = MetaRollout(Toy(), k=2, render_mode="rgb_array")
    walker = Walker()

    class Silent:
        start = staticmethod(walker.start)

        def act(self, observations, reset_mask):
            return np.full((1, 1), 0.5, dtype=np.float32)

    assert all(frame.shape == (8, 8, 3) for frame in film(Playthrough(env, Silent(), 0, {})))
    assert walker.plays == 1


def test_a_strip_shows_the_past_bright_and_the_rest_dark():
    trace = Trace([1.0] * 50 + [3.0] * 50, [0.0] * 100, [0, 50], [1.0, 2.0])
    strip = ValueStrip(trace, 456)
    assert len(of_colour(strip.at(0), BLUE)) < 60  # the word in the margin
    half, whole = of_colour(strip.at(50), BLUE), of_colour(strip.at(100), BLUE)
    assert half.max() == pytest.approx(48 + 200, abs=2)
    assert whole.max() > 440
    # The line is where its values are: 3 is at the top, 1 a third of the way up.
    picture = strip.at(100)[20:88]
    rows = [np.flatnonzero((np.abs(picture[:, column].astype(int) - BLUE) < 40).all(axis=-1)) for column in (150, 350)]
    assert rows[0].mean() == pytest.approx(68 * 2 / 3, abs=2)
    assert rows[1].mean() == pytest.approx(0, abs=2)


def test_rewards_are_bars_and_losses_have_another_colour():
    rewards = [0.0] * 100
    rewards[20], rewards[60] = 1.0, -1.0
    strip = ValueStrip(Trace([0.5] * 100, rewards, [0], [0.0]), 456).at(100)[61:88]
    assert of_colour(strip, GREEN)[of_colour(strip, GREEN) > 48].mean() == pytest.approx(48 + 20.5 * 4, abs=3)
    assert of_colour(strip, ORANGE).mean() == pytest.approx(48 + 60.5 * 4, abs=3)


@pytest.mark.parametrize("values", [[0.0, 0.0], [-1.0], [1e30, -1e30, 0.0]])
def test_a_strip_of_any_finite_values_is_drawn(values):
    strip = ValueStrip(Trace(values, [0.0] * len(values), [0], [1.0]), 96)
    assert strip.at(len(values)).shape == (96, 96, 3)
