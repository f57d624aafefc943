"""Kill ranks of a training run at random moments, and time one rank beside two.

    python results/cluster/ranks.py

Writes ranks.csv (one row for each kill) and ranks-speed.csv beside this file. It ends with an error if the run does not
complete, or if its log is not line by line that of a run that nobody disturbed. Linux, two cores, about ten minutes.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from mtbench.records import write_atomically

HERE = Path(__file__).parent
MODULE = "mtbench_agents.transformer"
RANKS = 2
TASKS = 'tasks=["RepeatFirstEasy","MineSweeperEasy","PositionOnlyCartPoleEasy"]'
COMMAND = ("MTPOPGym-v0", "--env", TASKS, "--sync", "evaluate_rounds=0", "checkpoint_rounds=1")
KILLED = ("--preset", "debug", "updates=1320", "round_updates=20", "collect.first_steps=1000")
TIMED = ("--preset", "small", "updates=300", "round_updates=50", "checkpoint_rounds=100")

# Of a log's lines: what depends on the clock.
_CLOCK = ("seconds", "cpu_seconds", "updates_per_second", "steps_per_second", "tokens_per_second", "flop_utilization")


def torchrun(ranks: int, folder: Path, *settings: str, restarts: int = 0) -> list[str]:
    """The command."""
    start = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]
    return [*start, "-m", MODULE, *COMMAND, *settings, "--out", str(folder)]


def environment() -> dict[str, str]:
    """One thread for each rank."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def lines(folder: Path) -> list[dict[str, object]]:
    """Whole lines of a run's log."""
    path = folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def timeless(folder: Path) -> list[dict[str, object]]:
    """The log without what depends on the clock."""
    return [{name: value for name, value in line.items() if name not in _CLOCK} for line in lines(folder)]


def ranks_of(parent: int) -> dict[int, int]:
    """The processes of a torchrun: process id by rank."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True)
    ranks = {}
    for pid in map(int, found.stdout.split()):
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        ranks.update({int(one[5:]): pid for one in variables if one.startswith(b"RANK=")})
    return ranks


def killed(folder: Path, kills: int, seed: int) -> list[dict[str, object]]:
    """Train to the end, with kills on the way: rows about them.

    Every other kill comes a random time after the one before, so that ranks are also hit while they start or resume.
    The others wait for some rounds first, so that kills are spread over the run.
    """
    rng, rounds = random.Random(seed), 66
    rows: list[dict[str, object]] = []
    process = subprocess.Popen(
        torchrun(RANKS, folder, *KILLED, restarts=2 * kills), env=environment(), stderr=subprocess.DEVNULL
    )
    before: set[int] = set()
    for kill in range(kills):
        while set(ranks := ranks_of(process.pid)) != set(range(RANKS)) or before & set(ranks.values()):
            if process.poll() is not None:
                raise SystemExit(f"The run has ended (exit code {process.returncode}) before kill {kill + 1}.")
            time.sleep(0.1)
        if kill % 2 == 0:
            while len(lines(folder)) < (kill + 1) * rounds // (kills + 2):
                time.sleep(0.1)
        time.sleep(rng.uniform(0, 12 if kill % 2 else 3))
        rank, logged = rng.randrange(RANKS), lines(folder)
        before = set(ranks.values())
        try:
            os.kill(ranks[rank], signal.SIGKILL)
        except ProcessLookupError:
            raise SystemExit(f"The run was over before kill {kill + 1}.") from None
        saved = sorted(path.name for path in folder.glob("checkpoints/update-*"))
        updates, newest = logged[-1]["updates"] if logged else 0, saved[-1] if saved else ""
        rows.append({"kill": kill + 1, "rank": rank, "updates_logged": updates, "newest_checkpoint": newest})
        print(rows[-1], flush=True)  # noqa: T201
    if process.wait():
        raise SystemExit(f"The run failed with exit code {process.returncode}.")
    return rows


def speed(ranks: int, folder: Path) -> dict[str, object]:
    """Updates a second at one global batch, after the first round."""
    subprocess.run(torchrun(ranks, folder, *TIMED), env=environment(), check=True, stderr=subprocess.DEVNULL)
    later = pd.DataFrame(lines(folder)).iloc[1:]
    return {
        "ranks": ranks,
        "batch_size": 16,
        "updates_per_second": round(later["updates_per_second"].median(), 2),
        "tokens_per_second": round(later["tokens_per_second"].median()),
        "seconds_of_50_updates_with_collecting": round(later["seconds"].median(), 2),
        "torch": torch.__version__,
    }


def written(name: str, rows: list[dict[str, object]]) -> None:
    """Write a table, and show it."""
    frame = pd.DataFrame(rows)
    write_atomically(HERE / name, lambda path: frame.to_csv(path, index=False))
    print(frame.to_string())  # noqa: T201


def main() -> None:
    """Kill, compare, time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole = torchrun(RANKS, folder / "whole", *KILLED)
        subprocess.run(whole, env=environment(), check=True, stderr=subprocess.DEVNULL)
        rows = killed(folder / "killed", arguments.kills, arguments.seed)
        if timeless(folder / "killed") != timeless(folder / "whole"):
            raise SystemExit("The run that was killed has another log than the one that was not.")
        written("ranks.csv", rows)
        written("ranks-speed.csv", [speed(ranks, folder / f"{ranks}-ranks") for ranks in (1, RANKS)])


if __name__ == "__main__":
    main()
