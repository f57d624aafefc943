"""Stable-Baselines3 and sb3-contrib: what they learn on, and the way around what fails."""

import gymnasium as gym
import numpy as np
import pytest

from mtbench import records
from tests.clients import example

pytest.importorskip("stable_baselines3")

SHORT = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "seed": 0, "device": "cpu"}


@pytest.mark.parametrize(
    ("env_id", "policy"),
    [
        ("MTPOPGym-v0", "MlpPolicy"),
        ("MTBabyAI-v0", "MultiInputPolicy"),
        ("ML10-v0", "MlpPolicy"),
        ("MTProcgen-Easy-v0", "CnnPolicy"),
    ],
)
def test_ppo_learns(env_id, policy):
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    try:
        venv = make_vec_env(env_id, n_envs=2, seed=0)
    except gym.error.DependencyNotInstalled as missing:
        pytest.skip(str(missing))
    before, after = learnt(PPO(policy, venv, **SHORT), 64)
    assert any(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_episodes_of_sb3_are_meta_rollouts():
    """Its Monitor counts a whole rollout, and the last info of a rollout reaches callbacks."""
    from stable_baselines3.common.env_util import make_vec_env

    pytest.importorskip("popgym")
    venv = make_vec_env("MTPOPGym-v0", n_envs=1, seed=0, env_kwargs={"tasks": ["MineSweeperEasy"]})
    venv.reset()
    done = [False]
    while not done[0]:
        _, _, done, infos = venv.step([venv.action_space.sample()])
    assert infos[0]["episode"]["l"] == sum(infos[0]["rollout"]["lengths"]) + 1
    assert infos[0]["episode"]["r"] == pytest.approx(infos[0]["rollout"]["returns"][-1], abs=1e-5)


def test_recurrent_ppo_learns_on_vectors():
    contrib = pytest.importorskip("sb3_contrib")
    pytest.importorskip("popgym")
    model = contrib.RecurrentPPO("MlpLstmPolicy", gym.make("MTPOPGym-v0"), **SHORT)
    before, after = learnt(model, 32)
    assert any(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_extractor_for_dicts_is_still_needed():
    """When this stops failing, `mtbench.clients.sb3.DictExtractor` may go."""
    contrib = pytest.importorskip("sb3_contrib")
    pytest.importorskip("minigrid")
    with pytest.raises(TypeError, match="input_size should be of type int"):
        contrib.RecurrentPPO("MultiInputLstmPolicy", gym.make("MTBabyAI-v0"), **SHORT)


def test_the_example_trains_evaluates_and_scores(tmp_path, capsys):
    contrib = pytest.importorskip("sb3_contrib")
    pytest.importorskip("popgym")
    example("sb3_lstm").main(["--steps", "2048", "--rollouts", "2", "--out", str(tmp_path)])
    assert "RecurrentPPO: oracle" in capsys.readouterr().out
    assert contrib.RecurrentPPO.load(tmp_path / "model.zip", device="cpu").num_timesteps == 2048
    assert records.read_run(tmp_path / "scored").manifest["step"] == 2048


def test_the_example_without_memory_learns_what_a_card_says(capsys):
    pytest.importorskip("popgym")
    example("sb3_ppo").main(["--steps", "40000", "--rollouts", "50"])
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| HigherLowerEasy")]
    assert float(row.split("|")[3]) > 0.6, "of the oracle scale"


def test_the_example_takes_dicts():
    pytest.importorskip("sb3_contrib")
    pytest.importorskip("minigrid")
    model = example("sb3_lstm").train("MTBabyAI-v0", {}, 64, n_envs=2, n_steps=32, batch_size=32, n_epochs=1)
    action, _ = model.predict(gym.make("MTBabyAI-v0").reset(seed=0)[0])
    assert 0 <= action < 7


def learnt(model, steps):
    def weights():
        return [parameter.detach().numpy().copy() for parameter in model.policy.parameters()]

    before = weights()
    model.learn(steps)
    model.get_env().close()
    return before, weights()
