"""Stable-Baselines3's PPO on its own environments (`gym.make`, one after the other) and on ours: steps a second.

Whole training: acting, the environments, learning. CPU time of the process with one PyTorch thread, wall time on
BabyAI. "upstream" in the table is SB3's own way.
"""

import time

import pytest
from sides import Sides

pytest.importorskip("stable_baselines3")

# Environments, and how SB3 learns: its defaults, and large batches, where the environments weigh more.
DEFAULTS = (8, {"n_steps": 256})
LARGE = (256, {"n_steps": 32, "batch_size": 4096, "n_epochs": 4})
CASES = [
    ("MTPOPGym-v0", "MlpPolicy", *DEFAULTS),
    ("MTPOPGym-v0", "MlpPolicy", *LARGE),
    ("MTBabyAI-v0", "MultiInputPolicy", *LARGE),
]
SIDES = Sides()


class Learning:
    """A model that goes on learning."""

    def __init__(self, make, env_id, policy, n_envs, settings):
        from stable_baselines3 import PPO

        self.model = PPO(policy, make(env_id, n_envs, seed=0), seed=0, device="cpu", **settings)
        self.steps = n_envs * settings["n_steps"]

    def play(self):
        self.model.learn(self.steps, reset_num_timesteps=False)


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("env_id", "policy", "n_envs", "settings"), CASES)
def test_ppo(benchmark, env_id, policy, n_envs, settings):
    from stable_baselines3.common.env_util import make_vec_env as single_by_single

    from mtbench.clients.sb3 import make_vec_env

    ours, theirs = (Learning(make, env_id, policy, n_envs, settings) for make in (make_vec_env, single_by_single))
    batch = settings.get("batch_size", 64)
    # BabyAI's engine draws layouts in other processes, which only the wall clock counts.
    clock = time.perf_counter if env_id == "MTBabyAI-v0" else time.process_time
    SIDES.compare(benchmark, f"PPO, {env_id}, {n_envs} environments, batches of {batch}", ours, theirs, clock)


def test_print_the_table(capsys):
    SIDES.show(capsys)
