"""The VecEnv on our engines beside SB3's own of single environments, and under SB3's wrappers and algorithms."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from mtbench.errors import UsageError

sb3 = pytest.importorskip("stable_baselines3")
pytest.importorskip("numba")

from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env  # noqa: E402
from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402
from stable_baselines3.common.vec_env import (  # noqa: E402
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from mtbench.clients.sb3 import DictExtractor, MetaRolloutVecEnv, make_vec_env  # noqa: E402

SHORT = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "seed": 0, "device": "cpu"}
MINES = {"tasks": ["MineSweeperEasy"]}


@pytest.fixture
def make():
    made = []

    def _make(env_id="MTPOPGym-v0", n_envs=3, **kwargs):
        try:
            made.append(make_vec_env(env_id, n_envs, **kwargs))
        except gym.error.DependencyNotInstalled as missing:
            pytest.skip(str(missing))
        return made[-1]

    yield _make
    for venv in made:
        venv.close()


@pytest.mark.parametrize(
    ("env_id", "kwargs", "steps"),
    [
        ("MTPOPGym-v0", {**MINES, "max_steps": 13}, 60),
        ("MTPOPGym-v0", {**MINES, "attempt_reset": "same-step", "expose_task_label": True}, 60),
        ("MTBabyAI-v0", {"objective": "k-shot", "max_steps": 20}, 50),
        ("MTProcgen-Easy-v0", {"max_steps": 12}, 30),
    ],
)
def test_it_returns_what_sb3s_own_returns(make, env_id, kwargs, steps):
    """Observations, rewards, dones, and the infos of every row down to the last key."""
    ours = make(env_id, seed=5, **kwargs)
    theirs = sb3_make_vec_env(env_id, n_envs=3, seed=5, env_kwargs=kwargs)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    same(ours.reset(), theirs.reset())
    same(ours.unwrapped.reset_infos, theirs.reset_infos)
    rng, ended = np.random.default_rng(0), 0
    for _ in range(steps):
        actions = rng.integers(ours.action_space.n, size=3)
        (obs, rewards, dones, infos), expected = ours.step(actions), theirs.step(actions)
        same((obs, rewards, dones), expected[:3])
        for mine, yours in zip(infos, expected[3], strict=True):
            counted, theirs_counted = mine.pop("episode", None), yours.pop("episode", None)
            assert (counted is None) == (theirs_counted is None)
            if counted is not None:
                assert counted["l"] == theirs_counted["l"]
                assert counted["r"] == pytest.approx(theirs_counted["r"], abs=1e-5)
            same(mine, yours)
        same(ours.unwrapped.reset_infos, theirs.reset_infos)
        ended += dones.sum()
    assert ended > 3
    theirs.close()


def same(ours, theirs):
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            same(ours[name], theirs[name])
    elif isinstance(theirs, (list, tuple)):
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    else:
        np.testing.assert_array_equal(ours, theirs)
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype


def test_infos_are_the_callers_to_edit(make):
    venv = make(**MINES)
    venv.reset()
    *_, infos = venv.step(np.zeros(3, dtype=int))
    for i, info in enumerate(infos):
        info["mine"] = i
    *_, after = venv.step(np.zeros(3, dtype=int))
    assert not any("mine" in info for info in after)


def test_seeds_and_options_count_for_one_reset(make):
    venv = make(tasks=["MineSweeperEasy", "RepeatFirstEasy"])
    venv.seed(7)
    venv.reset()
    first = venv.get_attr("variant")
    venv.reset()
    assert venv.get_attr("variant") != first
    venv.seed(7)
    venv.reset()
    assert venv.get_attr("variant") == first
    venv.set_options({"task": "RepeatFirstEasy", "variant": 3})
    venv.reset()
    assert venv.get_attr("task") == ["RepeatFirstEasy"] * 3
    assert venv.get_attr("variant") == [3, 3, 3]
    each = [{"task": "MineSweeperEasy", "variant": i} for i in range(3)]
    venv.set_options(each)
    venv.reset()
    assert venv.get_attr("task", [0, 2]) == ["MineSweeperEasy"] * 2
    assert venv.get_attr("variant", 1) == [1]
    venv.set_options([{}, {"task": "MineSweeperEasy"}, {}])
    with pytest.raises(UsageError, match="the same things"):
        venv.reset()


def test_what_an_engine_has_and_has_not(make):
    venv = make(**MINES)
    assert isinstance(venv, VecMonitor)
    assert isinstance(venv.unwrapped, VecEnv)
    assert venv.get_attr("tasks", [0]) == [["MineSweeperEasy"]]
    assert venv.get_attr("observation_space") == [venv.observation_space] * 3
    assert not venv.has_attr("action_masks")
    assert venv.env_is_wrapped(gym.Wrapper) == [False] * 3
    for ask in (lambda: venv.env_method("reset"), lambda: venv.set_attr("k", 3)):
        with pytest.raises(UsageError, match="steps all 3 together"):
            ask()


def test_pictures_come_from_single_environments(make):
    venv = make(render_mode="rgb_array", **MINES)
    venv.reset()
    frame = venv.render()
    one = venv.get_images()
    assert len(one) == 3
    assert frame.shape == (2 * one[0].shape[0], 2 * one[0].shape[1], 3)
    assert venv.env_method("index_of", (0, 1), indices=0) == [1]
    venv.set_attr("note", "kept", indices=[1])
    assert venv.get_attr("note", indices=1) == ["kept"]
    assert venv.env_is_wrapped(gym.Wrapper) == [False] * 3


def test_another_autoreset_is_refused():
    with pytest.raises(UsageError, match="SameStep"):
        MetaRolloutVecEnv(gym.make_vec("MTPOPGym-v0", num_envs=2))
    with pytest.raises(TypeError, match="copy"):
        make_vec_env("MTPOPGym-v0", copy=False)  # SB3 keeps the previous observations while it steps


def test_without_sb3_the_error_names_the_extra():
    code = "import sys; sys.modules['stable_baselines3'] = None; import mtbench.clients.sb3"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'mtbench-rl[sb3]'" in done.stderr


def test_rl2_inputs_reach_sb3():
    from mtbench.wrappers import VectorRL2Inputs

    venv = VectorRL2Inputs(gym.make_vec("MTPOPGym-v0", num_envs=2, autoreset_mode="SameStep", max_steps=5), "append")
    model = sb3.PPO("MlpPolicy", VecMonitor(MetaRolloutVecEnv(venv)), **SHORT).learn(64)
    assert model.observation_space.shape == (30 + 27 + 2,)
    venv.close()


@pytest.mark.parametrize(
    ("env_id", "policy"),
    [("MTBabyAI-v0", "MultiInputPolicy"), ("ML10-v0", "MlpPolicy"), ("MTProcgen-Easy-v0", "CnnPolicy")],
)
def test_ppo_learns_on_it(make, env_id, policy, tmp_path):
    """The same weights as on SB3's own environments: SB3 cannot tell them apart."""
    kwargs = {"max_steps": 20, **({"tasks": ["push-v3"]} if env_id == "ML10-v0" else {})}
    ours = make(env_id, 2, monitor_file=str(tmp_path / "log"), **kwargs)
    theirs = sb3_make_vec_env(env_id, n_envs=2, env_kwargs=kwargs)
    models = [sb3.PPO(policy, venv, **SHORT).learn(64) for venv in (ours, theirs)]
    for one, other in zip(*(model.policy.parameters() for model in models), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())
    assert [row["l"] for row in models[0].ep_info_buffer] == [20] * 2
    assert len((tmp_path / "log.monitor.csv").read_text().splitlines()) == 2 + 2
    assert isinstance(models[0].get_env(), VecTransposeImage) == (env_id == "MTProcgen-Easy-v0")
    theirs.close()


def test_recurrent_ppo_and_evaluate_policy(make):
    contrib = pytest.importorskip("sb3_contrib")
    venv = make("MTBabyAI-v0", 2, max_steps=20)
    extractor = {"features_extractor_class": DictExtractor}
    model = contrib.RecurrentPPO("MultiInputLstmPolicy", venv, policy_kwargs=extractor, **SHORT).learn(64)
    returns, lengths = evaluate_policy(model, venv, n_eval_episodes=4, return_episode_rewards=True)
    assert lengths == [20] * 4
    assert np.isfinite(returns).all()


def test_sb3s_wrappers_fit(make):
    normal = VecNormalize(make(max_steps=9, **MINES))
    stacked = VecFrameStack(make("MTProcgen-Easy-v0", max_steps=9), 2)
    for venv, actions in ((normal, 27), (stacked, 15)):
        venv.reset()
        ends = 0
        for _ in range(30):
            obs, _, dones, infos = venv.step(np.zeros(3, dtype=int) + 1)
            assert obs.shape == (3, *venv.observation_space.shape)
            for i in np.flatnonzero(dones):
                assert infos[i]["terminal_observation"].shape == venv.observation_space.shape
                ends += 1
        assert ends >= 9
        assert venv.action_space.n == actions
    assert normal.obs_rms.count > 60
