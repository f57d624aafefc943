"""Every ID with the rest of Gymnasium: checkers, specs, pickles, vectors, processes, wrappers."""

import multiprocessing
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mtbench.registration import find

from . import MODULES, SHORT_GAMES
from .helpers import equal, play, same_trace, suite_of


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_gymnasium_checker_is_content(env_id, split, render_mode):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(gym.make(env_id, split=split, render_mode=render_mode).unwrapped)
    recommended = ("is -infinity", "is infinity", "we recommend using a symmetric and normalized space")
    messages = [str(warning.message) for warning in caught]
    assert not [message for message in messages if not any(words in message for words in recommended)]


def test_stable_baselines_checker_is_content(env_id, split):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # BabyAI's views have the shape of an image but are not images. Their bound of 10 makes the checker warn, and
        # makes Stable-Baselines3 flatten them, as it should.
        warnings.filterwarnings("ignore", "It seems that your observation space image is an image but the upper")
        warnings.filterwarnings("ignore", "The minimal resolution for an image is 36x36")
        warnings.filterwarnings("ignore", "We recommend you to use a symmetric and normalized Box action space")
        checker.check_env(gym.make(env_id, split=split))


def test_the_spec_is_json_safe_and_makes_the_same_environment(make, env_id):
    copy = gym.make(gym.envs.registration.EnvSpec.from_json(gym.spec(env_id).to_json()))
    steps = 200 if suite_of(env_id).name in SHORT_GAMES else 100_000
    assert same_trace(play(copy, 0, max_steps=steps), play(make(tasks=None), 0, max_steps=steps))
    assert type(gym.make(env_id)).__name__ == "MetaRollout", "no wrapper of Gymnasium's slows it down"


def test_pickles_in_the_middle_of_a_rollout(make):
    env = make().unwrapped
    env.reset(seed=1)
    for _ in range(3):
        env.step(env.action_space.sample())
    copy = pickle.loads(pickle.dumps(env))
    for _ in range(3):
        action = env.action_space.sample()
        assert equal(env.step(action)[0], copy.step(action)[0])


def test_vector_environments_equal_single_ones(env_id, make):
    singles = [make(tasks=None) for _ in range(3)]
    assert_equal_to_singles(gym.make_vec(env_id, num_envs=3, vectorization_mode="sync"), singles)


def test_environments_in_other_processes_equal_those_here(env_id):
    singles = [gym.make(env_id) for _ in range(3)]
    assert_equal_to_singles(gym.make_vec(env_id, num_envs=3, vectorization_mode="async"), singles)
    for env in singles:
        env.close()


def assert_equal_to_singles(venv, singles):
    seeds = [11, 12, 13]
    batch, _ = venv.reset(seed=seeds)
    rows = [env.reset(seed=seed)[0] for env, seed in zip(singles, seeds, strict=True)]
    venv.action_space.seed(0)
    over = [False] * 3
    for _ in range(300):
        for i, row in enumerate(rows):
            assert equal(batch[i], row) if isinstance(batch, np.ndarray) else True
        actions = venv.action_space.sample()
        batch, rewards, terminated, truncated, _ = venv.step(actions)
        for i, env in enumerate(singles):
            if over[i]:  # Gymnasium's own next-step autoreset
                rows[i], over[i] = env.reset()[0], False
            else:
                rows[i], reward, *flags, _ = env.step(actions[i])
                assert rewards[i] == reward
                assert [terminated[i], truncated[i]] == flags
                over[i] = any(flags)
    venv.close()


def test_vector_statistics_arrive(env_id):
    venv = gym.make_vec(env_id, num_envs=2, vectorization_mode="sync", max_steps=30)
    venv.reset(seed=0)
    ended = 0
    for _ in range(40):
        *_, info = venv.step(venv.action_space.sample())
        if "rollout" in info:
            ended += int(info["_rollout"].sum())
            assert info["rollout"]["returns"].shape == (2, find(env_id).k)
    assert ended >= 2
    venv.close()


def _in_a_spawned_process(env_id, modules, queue):
    import importlib

    import gymnasium

    for module in modules:
        importlib.import_module(module)
    env = gymnasium.make(env_id)
    queue.put(env.reset(seed=3)[0])


@pytest.fixture(scope="session")
def seen_in_a_spawned_process(env_id):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_in_a_spawned_process, args=(env_id, MODULES, queue))
    process.start()
    there = queue.get(timeout=120)
    process.join(timeout=60)
    return there


def test_works_in_a_spawned_process(seen_in_a_spawned_process, make):
    assert equal(seen_in_a_spawned_process, make(tasks=None).reset(seed=3)[0])


def test_record_episode_statistics(make):
    env = gym.wrappers.RecordEpisodeStatistics(make())
    trace = play(env, 0)
    assert trace[-1][4]["episode"]["r"] == pytest.approx(sum(step[1] for step in trace))
    assert trace[-1][4]["episode"]["l"] == len(trace) - 1
    assert "rollout" in trace[-1][4]


def test_record_video_writes_one_file_per_rollout(env_id, tmp_path):
    pytest.importorskip("moviepy")
    env = gym.make(env_id, render_mode="rgb_array", max_steps=15)
    env = gym.wrappers.RecordVideo(env, str(tmp_path), episode_trigger=lambda _: True, disable_logger=True)
    for seed in range(2):
        play(env, seed)
    env.close()
    videos = sorted(tmp_path.glob("*.mp4"))
    assert len(videos) == 2
    assert all(video.stat().st_size > 1000 for video in videos)
