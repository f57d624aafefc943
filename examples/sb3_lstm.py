"""Train sb3-contrib's RecurrentPPO on mtbench's engines, evaluate it and print its scores.

Run ``python examples/sb3_lstm.py``; ``--steps 4000`` makes it a quick try. Needs the extras ``popgym`` (or another
suite's) and ``sb3``.

The folder keeps ``model.zip``. A file of two lines makes it a policy of the command line::

    policy = SB3Policy(RecurrentPPO.load("runs/sb3/model.zip"), deterministic=False)

and then ``mtbench evaluate MTPOPGym-v0 --policy my_file.py:policy --out runs/sb3-scored``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
from sb3_contrib import RecurrentPPO

import mtbench
from mtbench.adapters import SB3Policy
from mtbench.clients.sb3 import DictExtractor, make_vec_env


def train(env_id: str, env_kwargs: dict[str, Any], steps: int, n_envs: int = 32, **settings: Any) -> RecurrentPPO:
    venv = make_vec_env(env_id, n_envs, **env_kwargs)
    space = venv.observation_space
    if isinstance(space, gym.spaces.Dict):
        # `MultiInputLstmPolicy` fails on the MultiDiscrete parts of a Dict, such as BabyAI's mission, without this one.
        policy, settings["policy_kwargs"] = "MultiInputLstmPolicy", {"features_extractor_class": DictExtractor}
    else:
        policy = "CnnLstmPolicy" if len(space.shape) == 3 else "MlpLstmPolicy"
    model = RecurrentPPO(policy, venv, seed=1, **settings).learn(steps)
    venv.close()
    return model


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-id", default="MTPOPGym-v0")
    parser.add_argument("--tasks", nargs="+", default=["HigherLowerEasy"])
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--rollouts", type=int, default=20, help="for each task, when the model is evaluated")
    parser.add_argument("--out", type=Path, default=Path("runs/sb3"))
    args = parser.parse_args(given)
    kwargs = {"tasks": args.tasks}
    # The discount is low, as the default task pays each guess at once.
    model = train(
        args.env_id, kwargs, args.steps, n_steps=64, batch_size=512, n_epochs=4, gamma=0.5, learning_rate=2.5e-3
    )
    args.out.mkdir(parents=True, exist_ok=True)
    model.save(args.out / "model.zip")
    policy = SB3Policy(model, deterministic=False)
    run = mtbench.evaluate(
        args.env_id, policy, args.out / "scored", split="train", rollouts_per_task=args.rollouts, env_kwargs=kwargs
    )
    print(mtbench.score(run).table())


if __name__ == "__main__":
    main()
