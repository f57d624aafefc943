"""The learning results: their training runs, and the commands that repeat them.

    python results/learning/studies.py run games scales               # in runs/learning, one run a core
    python results/learning/studies.py collect                       # curves.csv and runs.csv, here
    python results/learning/figures.py                               # the figures
    python results/pages.py                                          # the tables and numbers of README.md

A run that is complete is not run again, and one that was interrupted goes on. Training keeps the agent of its best
validation, on cases of the train split. Where a study says so (:data:`KEPT`), the kept agents, or those of its end
(:data:`AT_THE_END`), then play the final cases, once; their records are committed in ``kept``.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from mtbench.provenance import provenance
from mtbench.records import EPISODES, MANIFEST, read_run, write_atomically
from mtbench.registration import find
from mtbench.scoring.references import load_references
from mtbench.scoring.scored import mean_scores

HERE = Path(__file__).parent
RUNS = Path("runs/learning")
FRESH = 500  # rollouts of a kept agent
# The studies whose kept agents play final cases, and how: BabyAI's are layouts that training never draws.
KEPT: dict[str, tuple[str, ...]] = {
    "games": ("--split", "test"),
    "babyai-two": ("--split", "train-distinct", "--audit"),
    "babyai-six": ("--split", "train-distinct", "--audit"),
    "ml1-reach": ("--split", "train", "--audit"),
    "ml1-push": ("--split", "train", "--audit"),
    "starpilot": ("--split", "test", "--audit"),
}
AT_THE_END = ("games",)


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
    env_id: str = "MTPOPGym-v0"
    agent: str = "transformer"

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return RUNS / self.study / self.name

    @property
    def _env(self) -> list[str]:
        env = {"tasks": list(self.tasks), "k": self.k, **self.env}
        return [text for key, value in env.items() for text in ("--env", f"{key}={json.dumps(value)}")]

    @property
    def command(self) -> list[str]:
        """What repeats it."""
        # The baseline is exactly repeatable as it is.
        how = ("--sync",) if self.agent == "transformer" else ("--agent", self.agent)
        return [
            *("mtbench", "train", self.env_id, "--preset", "small", *how, *self._env),
            *(f"seed={self.seed}", *self.settings, "--out", str(self.folder)),
        ]

    @property
    def play_kept(self) -> list[str]:
        """What plays its kept agent."""
        agent = self.folder if self.study in AT_THE_END else self.folder / "best"
        return [
            *("mtbench", "evaluate", self.env_id, "--policy", str(agent), *KEPT[self.study]),
            *("--rollouts-per-task", str(FRESH), *self._env, "--out", str(self.folder / "kept")),
        ]

    @property
    def kept_records(self) -> Path:
        """Where the records of its kept agent are committed."""
        return HERE / "kept" / self.name

    def score(self, task: str, mean: float) -> float:
        """A mean scored return of a task on the run's scale: the oracle's, or the published one of a suite without."""
        scales = load_references(find(self.env_id).suite).scales
        return float(scales["oracle" if "oracle" in scales else "published"].normalize(task, np.array(mean)))

    @property
    def kept_scores(self) -> dict[str, float]:
        """Its kept agent's score of each task on the run's scale, from the committed records; empty without them."""
        if not (self.kept_records / MANIFEST).exists():
            return {}
        kept = read_run(self.kept_records)
        means = mean_scores(kept.episodes, kept.manifest["objective"])
        return {task: self.score(task, mean) for task, mean in means.items()}

    @property
    def kept(self) -> float | None:
        """The mean of these; None without records."""
        scores = self.kept_scores
        return round(float(np.mean(list(scores.values()))), 4) if scores else None


MIXTURE = ("RepeatFirstEasy", "HigherLowerEasy", "PositionOnlyCartPoleEasy")
#: Name of a run: its games and attempts. All have the preset as it is.
GAMES = {
    "RepeatFirstEasy-k1": (("RepeatFirstEasy",), 1),
    "RepeatFirstEasy-k2": (("RepeatFirstEasy",), 2),
    "RepeatPreviousEasy-k1": (("RepeatPreviousEasy",), 1),
    "PositionOnlyCartPoleEasy-k1": (("PositionOnlyCartPoleEasy",), 1),
    "PositionOnlyCartPoleEasy-k2": (("PositionOnlyCartPoleEasy",), 2),
    "mixture-k1": (MIXTURE, 1),
}
RESCALED = {"RepeatFirstEasy": 100.0, "HigherLowerEasy": 0.1}
# Values of a hundredfold reward want wider bins; all runs of the study have them. The rest is what the preset had for
# POPGym when the study was made: it compares updates, all with the same settings.
_MIXTURE = (
    *("updates=9000", "learning.cooldown=1500", "learning.batch_size=24", "learning.batch_timesteps=null"),
    *("model.context=64", "model.bins=128", "model.bin_limit=100000", "model.convolution=0", "model.fine_inputs=0"),
    *("model.action_gates=false", "model.encoder_norm=false", "learning.balance_tasks=false", "learning.beta2=0.999"),
    *("learning.discounts=[0.1,0.9]", "learning.horizon_warmup=0", "learning.ema_rate=1", "learning.exact_actions=0"),
    *("learning.n_step=1", "learning.reward_multiplier=100", "learning.target_rate=0.01", "learning.value_samples=2"),
    *("collect.epsilon_end=0.05", "collect.epsilon_steps=200000", "collect.num_envs=32", "collect.replay=200000"),
    *("collect.steps_per_update=128", "evaluate_rollouts=50"),
)


def _scales() -> list[Run]:
    """The mixture as it is and with rewards rescaled, under independent, dependent and both mixed updates."""
    runs = []
    for seed in range(3):
        for actor, critic in (("independent",) * 2, ("dependent",) * 2, *(_MIXED if seed == 0 else ())):
            for scaling, scales in (("plain", None), ("rescaled", RESCALED)):
                updates = (f"learning.actor={json.dumps(actor)}", f"learning.critic={json.dumps(critic)}")
                env = {"reward_scales": scales} if scales else {}
                name = f"{actor}-actor-{critic}-critic-{scaling}-seed{seed}"
                runs.append(Run("scales", name, MIXTURE, 1, seed, (*_MIXTURE, *updates), env))
    return runs


_MIXED = (("independent", "dependent"), ("dependent", "independent"))

_TWO = ("BabyAI-GoToRedBallNoDists-v0", "BabyAI-GoToRedBall-v0")
_SIX = (*_TWO, *(f"BabyAI-{name}-v0" for name in ("GoToRedBlueBall", "GoToLocal", "GoToLocalS8N4", "GoToLocalS7N5")))


def _babyai(study: str, tasks: tuple[str, ...], *settings: str) -> list[Run]:
    """The preset as it is: what belongs to the suite is in it."""
    return [
        Run(study, f"{len(tasks)}-goto-tasks-k2-seed{seed}", tasks, 2, seed, settings, env_id="MTBabyAI-v0")
        for seed in range(3)
    ]


def _baseline() -> list[Run]:
    """Recurrent PPO on games that the reference agent learns with one attempt: half an hour of two cores a game."""
    # Rewards are paid at once in the card games; a pole stands or falls by what was done long before.
    games = {
        "RepeatFirstEasy": (("RepeatFirstEasy",), "discount=0.9"),
        "PositionOnlyCartPoleEasy": (("PositionOnlyCartPoleEasy",), "discount=0.98", "evaluate_rollouts=200"),
        "mixture": (MIXTURE, "discount=0.98"),
    }
    return [
        Run("recurrent-ppo", f"ppo-{name}-k1-seed{seed}", tasks, 1, seed, tuple(settings), agent="recurrent-ppo")
        for seed in range(3)
        for name, (tasks, *settings) in games.items()
    ]


#: By game: the settings (runs without their seeds) of the reference agent and of the baseline that are compared.
BESIDE = {
    "RepeatFirstEasy": ("RepeatFirstEasy-k1", "ppo-RepeatFirstEasy-k1"),
    "PositionOnlyCartPoleEasy": ("PositionOnlyCartPoleEasy-k1", "ppo-PositionOnlyCartPoleEasy-k1"),
    "mixture": ("mixture-k1", "ppo-mixture-k1"),
}

# A step of Meta-World pays up to 10, so a return is in the thousands: it is taken as it is, and the bins are as wide.
# A goal that was found is seen again as steps that pay: a memory of 128 steps has them. Dropout, weight decay and a
# replay that still has poor attempts are meant to keep the 50 goals of training from being learnt by heart.
_ML1 = (
    *("learning.reward_multiplier=1", "learning.ema_rate=0.005", "learning.value_samples=4", "learning.rate=0.001"),
    *("learning.batch_size=24", "model.context=128", "model.dropout=0.1", "learning.weight_decay=0.01"),
    *("collect.replay=2000000", "collect.num_envs=48", "evaluate_rollouts=30"),
)
_REACH = (
    *("updates=20000", "learning.cooldown=8000", "learning.n_step=5", "model.bin_limit=400"),
    "collect.epsilon_steps=600000",
)
# Holding the puck pays a little at once; the goal is found after a hundred steps of pushing or more. With the preset's
# discount of 0.97 these count for a twentieth, with 0.99 for a third. A closed gripper on top of the puck pays too, but
# only a puck between the fingers tells by its rewards where the goal is: some random values last, so that at times the
# gripper is open when the hand goes down.
_PUSH = (
    *("updates=40000", "learning.cooldown=12000", "learning.n_step=10", "model.bin_limit=1200"),
    *("learning.discounts=[0.99]", "collect.epsilon_steps=1000000", "collect.epsilon_end=0.2"),
    "collect.epsilon_hold=10",
)


def _ml1(study: str, task: str, *settings: str) -> list[Run]:
    """One skill, three attempts at each goal: the paper's ML1."""
    return [
        Run(study, f"{task}-k3-seed{seed}", (task,), 3, seed, (*settings, *_ML1), env_id="ML10-v0") for seed in range(3)
    ]


# A frame costs far more to learn from than to play, so that an update takes 256 new ones, half as many as it learns
# from. Rewards follow shots within a second. The bins are for returns of tens, times 10.
_STARPILOT = (
    *("updates=3000", "learning.cooldown=1000", "learning.discounts=[0.95]", "learning.exact_actions=15"),
    *("learning.value_samples=1", "learning.n_step=5", "learning.ema_rate=0.01", "learning.rate=0.001"),
    *("model.bin_limit=300", "collect.steps_per_update=256", "collect.num_envs=64", "collect.epsilon_steps=300000"),
    *("collect.replay=300000", "evaluate_rollouts=20"),
)


def _starpilot() -> list[Run]:
    """One game of Procgen, two attempts at each level."""
    return [
        Run("starpilot", f"starpilot-k2-seed{seed}", ("starpilot",), 2, seed, _STARPILOT, env_id="MTProcgen-Easy-v0")
        for seed in range(3)
    ]


STUDIES: dict[str, list[Run]] = {
    "starpilot": _starpilot(),
    "ml1-reach": _ml1("ml1-reach", "reach-v3", *_REACH),
    "ml1-push": _ml1("ml1-push", "push-v3", *_PUSH),
    "recurrent-ppo": _baseline(),
    "babyai-two": _babyai("babyai-two", _TWO),
    "babyai-six": _babyai("babyai-six", _SIX, "updates=40000", "learning.cooldown=12000"),
    "scales": _scales(),
    "games": [
        Run("games", f"{name}-seed{seed}", tasks, k, seed) for seed in range(5) for name, (tasks, k) in GAMES.items()
    ],
}


def shown(command: list[str]) -> str:
    """As one would type it."""
    return shlex.join(command)


def run(studies: list[str], workers: int) -> None:
    """Every run of these studies, `workers` at a time."""
    missing = [r for study in studies for r in STUDIES[study]]

    def train(r: Run) -> None:
        r.folder.mkdir(parents=True, exist_ok=True)
        with (r.folder / "output.txt").open("a") as output:
            bin = Path(sys.executable).parent
            subprocess.run([bin / r.command[0], *r.command[1:]], check=True, stdout=output, stderr=output)
            if r.study in KEPT:
                subprocess.run([bin / r.play_kept[0], *r.play_kept[1:]], check=True, stdout=output, stderr=output)

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
        unit = "updates" if r.agent == "transformer" else "steps"
        if lines[-1][unit] < json.loads((r.folder / "config.json").read_text())[unit]:
            continue
        if r.study in KEPT and (r.folder / "kept" / MANIFEST).exists():
            for manifest in (r.folder / "kept").rglob(MANIFEST):  # its audits too
                into = r.kept_records / manifest.parent.relative_to(r.folder / "kept")
                into.mkdir(parents=True, exist_ok=True)
                for name in (EPISODES, MANIFEST):
                    shutil.copy(manifest.parent / name, into / name)
        seconds = 0.0
        for line in lines:
            seconds += line.get("cpu_seconds", line["seconds"])  # of the one core; older logs have the clock's alone
            row = {"study": r.study, "run": r.name, **{name: line[name] for name in ("updates", "steps")}}
            row |= {"seconds": round(seconds), "training_return": line["returns"][-1]}
            for task, value in line.get("evaluation", {}).items():
                curves.append({**row, "task": task, "return": value, "score": round(r.score(task, value), 4)})
        last = lines[-1]
        runs.append(
            {
                **{"study": r.study, "run": r.name, "updates": last["updates"], "steps": last["steps"]},
                **{"kept": r.kept, "minutes": round(seconds / 60, 1), "hardware": hardware},
                "command": shown(r.command),
            }
        )
    tables = {"curves.csv": pd.DataFrame(curves), "runs.csv": pd.DataFrame(runs)}
    for name, frame in tables.items():
        if (HERE / name).exists():  # runs of another day stay
            before = pd.read_csv(HERE / name)
            again = before["study"].add(before["run"]).isin(frame["study"].add(frame["run"]))
            frame = pd.concat([before[~again], frame], ignore_index=True)
        frame = frame.sort_values(["study", "run"], kind="stable")
        write_atomically(HERE / name, lambda path, frame=frame: frame.to_csv(path, index=False))


def committed() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The curves, with the setting that the seeds of a run share, and the runs."""
    curves = pd.read_csv(HERE / "curves.csv")
    setting = curves["run"].str.replace(r"-seed\d+$", "", regex=True)
    return curves.assign(setting=setting), pd.read_csv(HERE / "runs.csv")


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
