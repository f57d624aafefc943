"""The learning results: which runs there are, how to repeat them, and how their curves get here.

    python results/learning/studies.py run repeat-first cartpole     # in runs/learning, one run a core
    python results/learning/studies.py collect                       # curves.csv, runs.csv and learning.png, here

A run that is complete is not run again, and one that was interrupted goes on.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.progress import track

from mtbench.provenance import provenance
from mtbench.records import write_atomically

HERE = Path(__file__).parent
RUNS = Path("runs/learning")


@dataclass(frozen=True)
class Run:
    """One training run; its folder is ``runs/learning/STUDY/NAME``."""

    study: str
    name: str
    tasks: tuple[str, ...]
    k: int
    seed: int
    settings: tuple[str, ...] = ()
    env: dict[str, object] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return RUNS / self.study / self.name

    @property
    def command(self) -> list[str]:
        """What repeats it."""
        env = {"tasks": list(self.tasks), "k": self.k, **self.env}
        options = [text for key, value in env.items() for text in ("--env", f"{key}={json.dumps(value)}")]
        return [
            *("mtbench", "train", "MTPOPGym-v0", "--preset", "small", "--sync", *options),
            *(f"seed={self.seed}", *self.settings, "--out", str(self.folder)),
        ]


def _single(study: str, task: str, seeds: int, *settings: str) -> list[Run]:
    return [
        Run(study, f"{task}-k{k}-seed{seed}", (task,), k, seed, settings) for seed in range(seeds) for k in (1, 2)
    ]


# A longer horizon and no other beside it: what tells two pushes of a cart apart is small, and every further discount
# factor adds its noise.
_CARTPOLE = (
    *("updates=8000", "learning.discounts=[0.95]", "learning.batch_size=32", "learning.value_samples=4"),
    *("learning.target_rate=0.02", "collect.replay=100000"),
)

STUDIES: dict[str, list[Run]] = {
    "cartpole": _single("cartpole", "PositionOnlyCartPoleEasy", 3, *_CARTPOLE),
    "repeat-first": _single("repeat-first", "RepeatFirstEasy", 3),
}


def run(studies: list[str], workers: int) -> None:
    """Every run of these studies, `workers` at a time."""
    missing = [r for study in studies for r in STUDIES[study]]

    def train(r: Run) -> None:
        r.folder.mkdir(parents=True, exist_ok=True)
        with (r.folder / "output.txt").open("a") as output:
            subprocess.run([Path(sys.executable).parent / "mtbench", *r.command[1:]], check=True, stdout=output, stderr=output)

    with ThreadPoolExecutor(workers) as pool:
        for _ in track(pool.map(train, missing), total=len(missing), description="runs"):
            pass


def collect() -> None:
    """The curves of all complete runs as tables."""
    machine = provenance([])["hardware"]
    hardware = f"one core, {machine['cpu']}"
    curves, runs = [], []
    for r in (r for study in STUDIES.values() for r in study):
        log = r.folder / "log.jsonl"
        if not log.exists():
            continue
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        if lines[-1]["updates"] < json.loads((r.folder / "config.json").read_text())["updates"]:
            continue
        seconds = 0.0
        for line in lines:
            seconds += line["seconds"]
            row = {"study": r.study, "run": r.name, **{name: line[name] for name in ("updates", "steps")}}
            row |= {"seconds": round(seconds), "training_return": line["returns"][-1]}
            curves += [{**row, "task": task, "return": value} for task, value in line.get("evaluation", {}).items()]
        last = lines[-1]
        runs.append(
            {
                **{"study": r.study, "run": r.name, "updates": last["updates"], "steps": last["steps"]},
                **{"minutes": round(seconds / 60, 1), "hardware": hardware},
                "command": " ".join(f"'{word}'" if '"' in word else word for word in r.command),
            }
        )
    for name, rows in (("curves.csv", curves), ("runs.csv", runs)):
        frame = pd.DataFrame(rows)
        write_atomically(HERE / name, lambda path, frame=frame: frame.to_csv(path, index=False))


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("studies", nargs="+", choices=sorted(STUDIES))
    running.add_argument("--workers", type=int, default=os.cpu_count())
    commands.add_parser("collect")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.studies, arguments.workers)
    else:
        collect()


if __name__ == "__main__":
    main()
