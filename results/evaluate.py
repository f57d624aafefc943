"""Make the committed runs: every baseline on every ID and split, each with one `mtbench evaluate` command.

    python results/evaluate.py                 # what is missing, one run after the other
    python results/evaluate.py MTBabyAI-v0     # of some IDs

A run that is complete is left as it is; one that was interrupted resumes.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from rich import print

from mtbench.suites.procgen import GAMES

HERE = Path(__file__).parent


def command(env_id: str, split: str, policy: str, rollouts: int, folder: str, *more: str) -> list[str]:
    """One evaluation, as one would type it in a clone.

    Random play depends on the size of the batch. The committed runs were made with 32, the default at that time.
    """
    return [
        *("mtbench", "evaluate", env_id, "--policy", policy, "--split", split, "--num-envs", "32"),
        *("--rollouts-per-task", str(rollouts), *more, "--out", f"results/{env_id}/{folder}"),
    ]


_ALL_GAMES = f"tasks={json.dumps(GAMES, separators=(',', ':'))}"
COMMANDS = [
    *(command("MTPOPGym-v0", "test", policy, 1000, policy) for policy in ("random", "oracle")),
    *(
        command("MTBabyAI-v0", split, policy, rollouts, f"{split}/{policy}")
        for split in ("train", "test")
        for policy, rollouts in (("random", 200), ("oracle", 100))
    ),
    command("MTProcgen-Easy-v0", "test", "random", 200, "random", "--env", _ALL_GAMES),
    command("MTProcgen-MemoryHard-v0", "test", "random", 200, "random"),
    command("MTAtari-v0", "test", "random", 50, "random"),
    *(
        command(env_id, split, policy, 50, f"{split}/{policy}")
        for policy in ("oracle", "random")
        for env_id in ("ML45-v0", "ML10-v0")
        for split in ("test", "train")
    ),
]


def main() -> None:
    """Run what was asked for."""
    for arguments in COMMANDS:
        if len(sys.argv) > 1 and arguments[2] not in sys.argv[1:]:
            continue
        print(shlex.join(arguments))
        program = Path(sys.executable).parent / arguments[0]
        subprocess.run([program, *arguments[1:]], check=True, cwd=HERE.parent)


if __name__ == "__main__":
    main()
