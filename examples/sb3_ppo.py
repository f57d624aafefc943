"""Train Stable-Baselines3's PPO on mtbench's engines, evaluate it and print its scores.

Run ``python examples/sb3_ppo.py``. Needs the extras ``popgym`` and ``sb3``; half a minute on one core.

PPO without memory cannot adapt: it plays HigherLower by the card it sees, and that is all it can do.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from stable_baselines3 import PPO

import mtbench
from mtbench.adapters import SB3Policy
from mtbench.clients.sb3 import make_vec_env

TASKS = {"tasks": ["HigherLowerEasy"], "k": 1}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--rollouts", type=int, default=100, help="for each task, when the model is evaluated")
    args = parser.parse_args(given)
    venv = make_vec_env("MTPOPGym-v0", 64, **TASKS)
    # The discount is low, as every guess is paid at once.
    model = PPO("MlpPolicy", venv, n_steps=32, batch_size=512, n_epochs=4, gamma=0.5, learning_rate=2.5e-3, seed=1)
    model.learn(args.steps)
    venv.close()
    policy = SB3Policy(model, deterministic=False)
    run = mtbench.evaluate("MTPOPGym-v0", policy, rollouts_per_task=args.rollouts, env_kwargs=TASKS)
    print(mtbench.score(run).table())


if __name__ == "__main__":
    main()
