"""TorchRL's wrappers, and that they show what the environment shows."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from mtbench import records
from mtbench.errors import UnknownArgumentError
from tests.clients import example

envs = pytest.importorskip("torchrl.envs")
torch = pytest.importorskip("torch")

EVERY = ["MTPOPGym-v0", "MTBabyAI-v0", "MTAtari-v0", "MTProcgen-Easy-v0", "ML10-v0"]


@pytest.mark.parametrize("env_id", EVERY)
def test_gym_env_makes_each_suite_by_its_id(env_id):
    skip_without(env_id)
    env = envs.GymEnv(env_id)
    envs.check_env_specs(env)
    env.close()


def test_gym_env_passes_arguments_on_and_repeats_actions_itself():
    skip_without("MTPOPGym-v0")
    env = envs.GymEnv("MTPOPGym-v0", tasks=["MineSweeperEasy"], frame_skip=2)
    assert env.unwrapped.tasks == ["MineSweeperEasy"]
    assert env.wrapper_frame_skip == 2
    with pytest.raises(UnknownArgumentError, match="Did you mean 'tasks'"):
        envs.GymEnv("MTPOPGym-v0", task=["MineSweeperEasy"])


def test_a_wrapped_environment_shows_what_it_shows_without():
    skip_without("MTPOPGym-v0")
    made = {"id": "MTPOPGym-v0", "objective": "k-episode"}
    env = envs.GymWrapper(gym.make(**made), categorical_action_encoding=True)
    envs.check_env_specs(env)
    env.set_seed(5)
    shown = env.rollout(500)  # begins with a reset of its own
    plain = gym.make(**made)
    plain.reset(seed=5)
    rows = [plain.reset()[0]]
    for t, action in enumerate(shown["action"].tolist()):
        row, reward, terminated, truncated, _ = plain.step(action)
        rows.append(row)
        assert shown["next", "reward"][t].item() == pytest.approx(reward)
        assert shown["next", "done"][t].item() == (terminated or truncated)
    assert terminated or truncated
    np.testing.assert_array_equal(shown["observation"].numpy(), rows[:-1])
    np.testing.assert_array_equal(shown["next", "observation"].numpy(), rows[1:])


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_a_wrapped_batch_shows_what_it_shows_without(mode):
    """Over the ends of rollouts, where TorchRL keeps the last observation under "next" and goes on with the first."""
    skip_without("MTPOPGym-v0")
    made = {"id": "MTPOPGym-v0", "num_envs": 4, "tasks": ["MineSweeperEasy"], "objective": "k-episode"}
    checked, env = (
        envs.GymWrapper(gym.make_vec(**made, autoreset_mode=mode), categorical_action_encoding=True) for _ in range(2)
    )
    # On one of its own: TorchRL shows old observations in a reset that follows upon the end of a rollout (SAME_STEP).
    envs.check_env_specs(checked)
    checked.close()
    env.set_seed(5)
    shown = env.rollout(120, break_when_any_done=False)
    plain = gym.make_vec(**made, autoreset_mode=AutoresetMode.DISABLED)
    plain.reset(seed=5)
    rows, ends = plain.reset()[0], 0
    for t in range(120):
        np.testing.assert_array_equal(shown["observation"][:, t].numpy(), rows)
        rows, reward, terminated, truncated, _ = plain.step(shown["action"][:, t].numpy())
        over = terminated | truncated
        np.testing.assert_array_equal(shown["next", "observation"][:, t].numpy(), rows)
        np.testing.assert_allclose(shown["next", "reward"][:, t, 0].numpy(), reward, rtol=1e-6)
        np.testing.assert_array_equal(shown["next", "done"][:, t, 0].numpy(), over)
        ends += over.sum()
        if over.any():
            rows = plain.reset(options={"reset_mask": over})[0]
    assert ends >= 4
    env.close()


def test_a_batch_that_resets_in_the_next_step_is_torchrls_to_refuse():
    skip_without("MTPOPGym-v0")
    with pytest.raises(RuntimeError, match="SAME_STEP or DISABLED"):
        envs.GymWrapper(gym.make_vec("MTPOPGym-v0", num_envs=2))


def test_the_example_trains_evaluates_and_scores(tmp_path, capsys):
    skip_without("MTPOPGym-v0")
    example("torchrl_lstm").main(["--iterations", "2", "--rollouts", "2", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "iteration=1 reward=" in printed
    assert "TorchRL PPO: oracle" in printed
    assert records.read_run(tmp_path).manifest["agent"] == "TorchRL PPO"


def skip_without(env_id):
    try:
        gym.make(env_id).close()
    except gym.error.DependencyNotInstalled as missing:
        pytest.skip(str(missing))
