"""Every suite says where it differs from the published settings, each time with its source."""

import importlib
import re

import gymnasium as gym
import numpy as np
import pytest

from mtbench.registration import TABLE
from mtbench.rollout import MetaRollout

ROOMS = sorted({row.suite.extra for row in TABLE})
SOURCE = re.compile(r"\([^()]*(Appendix [A-C]|Section \d|Figures? \d+|\w+\.(py|cpp)|pull requests? \d+)[^()]*\)")
# What must be named, by the words of its sentence.
NAMED = {
    "popgym": ["27 actions", "popgym 1.0.7", "one more step", "channel 28", "MineSweeper"],
    "procgen": ["last frame", "10,001", "training levels themselves", "truncated", "test-distinct"],
    "atari": ["4 frames", "last step", "one game for good", "channels first", "lost_luggage"],
    "babyai": ["`attempt` is 0", "GoToObjS6", "18 held-out", "600,000", "`extra`", "Fifteen further"],
    "metaworld": ["-v3", "steps / 500", "ignores its action", "50 other goals", 'split="train"', "ML10"],
}


@pytest.mark.parametrize("room", ROOMS)
def test_departures_are_sentences_with_sources(room):
    module = importlib.import_module(f"mtbench.suites.{room}")
    for suite in module.SUITES.values():
        assert suite.departures is module.DEPARTURES
    for sentence in module.DEPARTURES:
        assert sentence[0].isupper() or sentence.startswith(("`", "popgym "))
        assert sentence.endswith(".")
        assert "  " not in sentence
        assert SOURCE.search(sentence), sentence
    for words in NAMED[room]:
        assert sum(words in sentence for sentence in module.DEPARTURES) >= 1, words


@pytest.mark.parametrize("room", ROOMS)
def test_the_docstring_says_what_is_followed_and_where_departures_are(room):
    text = importlib.import_module(f"mtbench.suites.{room}").__doc__
    assert re.search(r"Published settings that the suites? follows?:\n\n- ", text)
    assert ":data:`DEPARTURES`" in text


def test_a_new_suite_departs_from_nothing():
    from tests import toy

    assert toy.SUITE.departures == ()


# ---- what the sentences say is so ----


def test_three_attempts_of_meta_world_take_1502_steps():
    pytest.importorskip("metaworld")
    for attempt_reset, steps in (("next-step", 1502), ("same-step", 1500)):
        env = MetaRollout("metaworld-ml10", tasks=["reach-v3"], k=3, attempt_reset=attempt_reset)
        env.reset(seed=0)
        taken, over = 0, False
        while not over:
            _, _, terminated, truncated, _ = env.step(np.zeros(4, np.float32))
            taken, over = taken + 1, terminated or truncated
        assert (taken, terminated, truncated) == (steps, True, False)


def test_babyai_counts_attempts_from_0_to_one_half():
    pytest.importorskip("minigrid")
    env = gym.make("MTBabyAI-v0", tasks=["BabyAI-GoToObjS6-v1"])
    obs, _ = env.reset(seed=0)
    shown, over = [float(obs["attempt"][0])], False
    while not over:
        obs, _, over, _, _ = env.step(0)
        shown.append(float(obs["attempt"][0]))
    assert shown == [0.0] * 37 + [0.5] * 37  # 36 steps each, and the first observations


def test_procgens_last_frame_is_shown_again_without_a_box():
    from mtbench.suites.procgen import core

    if core.find_library() is None:
        pytest.skip("no wheel of Procgen is installed")
    env = gym.make("MTProcgen-Easy-v0", tasks=["leaper"])
    before, _ = env.reset(seed=0)
    while env.unwrapped.playing:
        last, (obs, *_) = before, env.step(4)
        before = obs
    assert np.array_equal(obs, last), "the attempt's end"
    assert obs[1:5, 1:5].any()
    obs, *_ = env.step(4)
    assert not obs[1:5, 1:5].any(), "the second attempt"


def test_atari_plays_four_frames_and_shows_its_last_frame_again():
    pytest.importorskip("ale_py")
    env = gym.make("MTAtari-v0", tasks=["breakout"])
    before, _ = env.reset(seed=0)
    frames = env.unwrapped.base._ale.getEpisodeFrameNumber()
    over = False
    while not over:
        last = before
        before, _, over, _, _ = env.step(1)
        if not over:
            assert env.unwrapped.base._ale.getEpisodeFrameNumber() == frames + 4
            frames += 4
    assert np.array_equal(before, last)
