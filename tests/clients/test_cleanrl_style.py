"""A single-file PPO loop on Gymnasium's vector interface, and the wrapper such loops count with."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import mtbench  # noqa: F401
from tests.clients import example

pytest.importorskip("torch")
pytest.importorskip("popgym")
pytest.importorskip("numba")

ppo = example("cleanrl_style")


def test_ppo_learns_and_is_paid_for_the_last_attempt():
    log = ppo.train(ppo.Args())
    assert all(np.isfinite(row["loss"]) for row in log)
    # k-shot pays for the last attempt alone.
    assert all(row["paid"] == pytest.approx(row["last"]) for row in log)
    last = [row["last"] for row in log]
    assert np.mean(last[-3:]) > np.mean(last[:3]) + 0.1  # measured: 0.01 to 0.33


def test_the_loop_sees_the_same_on_single_environments_and_on_the_engine(capsys):
    short = ["--iterations", "3", "--num-envs", "8"]
    ppo.main(short)
    engine = capsys.readouterr().out
    ppo.main([*short, "--sync"])
    assert "paid=" in engine
    assert engine == capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("engine", mode) for mode in AutoresetMode),
        # Not DISABLED: Gymnasium's SyncVectorEnv takes the mask out of the options before the wrapper reads it.
        ("sync", AutoresetMode.NEXT_STEP),
        ("sync", AutoresetMode.SAME_STEP),
    ],
)
def test_record_episode_statistics_counts_whole_rollouts(kind, mode):
    """Under each autoreset mode it sums the returns of all attempts, and their steps with the two between them."""
    how = {"autoreset_mode": mode}
    if kind == "sync":
        how = {"vectorization_mode": "sync", "vector_kwargs": how}
    tasks = ["RepeatFirstEasy", "MineSweeperEasy", "MultiarmedBanditEasy"]
    envs = gym.make_vec("MTPOPGym-v0", num_envs=6, tasks=tasks, objective="k-episode", k=3, **how)
    assert envs.autoreset_mode is envs.metadata["autoreset_mode"] is mode
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    envs.reset(seed=3)
    envs.action_space.seed(3)
    ended = np.zeros(6, dtype=int)
    while ended.min() < 2:  # beyond the first rollout, where modes differ
        _, _, terminated, truncated, infos = envs.step(envs.action_space.sample())
        over = terminated | truncated
        assert ("episode" in infos) == over.any()
        if not over.any():
            continue
        rollout = (infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos)["rollout"]
        np.testing.assert_array_equal(infos["_episode"], over)
        np.testing.assert_allclose(infos["episode"]["r"][over], rollout["returns"][over].sum(axis=1), atol=1e-9)
        np.testing.assert_array_equal(infos["episode"]["l"][over], rollout["lengths"][over].sum(axis=1) + 2)
        ended += over
        if mode is AutoresetMode.DISABLED:
            envs.reset(options={"reset_mask": over})
    envs.close()
