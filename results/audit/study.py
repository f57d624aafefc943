"""The adaptation audit of agents that exist: two built-in policies, the reference agent, and an LSTM of sb3-contrib.

    python results/audit/study.py          # trains and evaluates what is missing, and copies the records here
    python results/pages.py                # writes the table of README.md

The reference agent's BabyAI records are those of ../learning/kept.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from sb3_contrib import RecurrentPPO

import mtbench
from mtbench.adapters import SB3Policy
from mtbench.clients.sb3 import make_vec_env
from mtbench.records import EPISODES, MANIFEST

HERE = Path(__file__).parent
RUNS = Path("runs/audit")
FIRST, CARDS = {"tasks": ["RepeatFirstEasy"]}, {"tasks": ["HigherLowerEasy"]}

# By folder of records: the environment, the policy, and how many rollouts of each task.
BUILT_IN = {
    "popgym-random": ("MTPOPGym-v0", "random", 100, {}),
    "popgym-oracle": ("MTPOPGym-v0", "oracle", 20, {}),
    "babyai-random": ("MTBabyAI-v0", "random", 100, {}),
    "babyai-oracle": ("MTBabyAI-v0", "oracle", 20, {}),
}


def trained() -> str:
    """The reference agent on a game of POPGym: the folder of its kept agent.

    It is RepeatFirstEasy-k2-seed0 of ../learning, trained again where it is not in the folder.
    """
    folder = RUNS / "reference"
    env = ("--env", f"tasks={json.dumps(FIRST['tasks'])}", "--env", "k=2")
    command = ["mtbench", "train", "MTPOPGym-v0", "--preset", "small", "--sync", *env, "seed=0"]
    subprocess.run([Path(sys.executable).parent / command[0], *command[1:], "--out", folder], check=True)
    return str(folder / "best")


def lstm() -> SB3Policy:
    """RecurrentPPO on another one, with the settings of examples/sb3_lstm.py."""
    path = RUNS / "lstm.zip"
    if not path.exists():
        venv = make_vec_env("MTPOPGym-v0", 32, **CARDS)
        settings = {"n_steps": 64, "batch_size": 512, "n_epochs": 4, "gamma": 0.5, "learning_rate": 2.5e-3}
        model = RecurrentPPO("MlpLstmPolicy", venv, seed=1, **settings).learn(200_000)
        venv.close()
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
    return SB3Policy(RecurrentPPO.load(path), deterministic=False)


def play() -> None:
    """All evaluations that are not here yet."""
    todo = {name: (env_id, policy, count, kwargs) for name, (env_id, policy, count, kwargs) in BUILT_IN.items()}
    for name, make, kwargs in (("popgym-reference", trained, FIRST), ("popgym-lstm", lstm, CARDS)):
        if not (HERE / name / MANIFEST).exists():
            todo[name] = ("MTPOPGym-v0", make(), 500, kwargs)
    for name, (env_id, policy, count, kwargs) in todo.items():
        if (HERE / name / MANIFEST).exists():
            continue
        out = RUNS / "played" / name
        mtbench.evaluate(
            env_id, policy, out, rollouts_per_task=count, env_kwargs=kwargs, audit=True, agent=name.split("-")[1]
        )
        for manifest in out.rglob(MANIFEST):
            into = HERE / name / manifest.parent.relative_to(out)
            into.mkdir(parents=True, exist_ok=True)
            for file in (EPISODES, MANIFEST):
                shutil.copy(manifest.parent / file, into / file)


if __name__ == "__main__":
    play()
