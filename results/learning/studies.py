"""The learning results: their training runs, the commands that repeat them, and the tables made of them.

    python results/learning/studies.py run repeat-first scales       # in runs/learning, one run a core
    python results/learning/studies.py collect                       # curves.csv and runs.csv, here
    python results/learning/figures.py                               # the figures
    python results/pages.py                                          # the tables and numbers of README.md

A run that is complete is not run again, and one that was interrupted goes on. Training keeps the agent of its best
validation, on cases of the train split. Where a study says so (:data:`KEPT`), the kept agents then play the final
cases, once; their records are committed in ``kept``.
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
from scipy import stats

from mtbench.provenance import provenance
from mtbench.records import EPISODES, MANIFEST, read_run, write_atomically
from mtbench.registration import find
from mtbench.scoring import score
from mtbench.scoring.references import load_references
from mtbench.scoring.scored import mean_scores

HERE = Path(__file__).parent
RUNS = Path("runs/learning")
FRESH = 500  # rollouts of a kept agent
# The studies whose kept agents play final cases, and how: BabyAI's are layouts that training never draws.
KEPT: dict[str, tuple[str, ...]] = {
    "cartpole": ("--split", "test"),
    "babyai-two": ("--split", "train-distinct", "--audit"),
    "babyai-six": ("--split", "train-distinct", "--audit"),
    "ml1-reach": ("--split", "train", "--audit"),
    "ml1-push": ("--split", "train", "--audit"),
}


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
        return [
            *("mtbench", "evaluate", self.env_id, "--policy", str(self.folder / "best"), *KEPT[self.study]),
            *("--rollouts-per-task", str(FRESH), *self._env, "--out", str(self.folder / "kept")),
        ]

    @property
    def kept_records(self) -> Path:
        """Where the records of its kept agent are committed."""
        return HERE / "kept" / self.name

    def oracle_score(self, task: str, mean: float) -> float:
        """A mean scored return of a task on the oracle scale."""
        scale = load_references(find(self.env_id).suite).scales["oracle"]
        return float(scale.normalize(task, np.array(mean)))

    @property
    def kept(self) -> float | None:
        """Its kept agent's score on the oracle scale, from the committed records; None without them."""
        if not (self.kept_records / MANIFEST).exists():
            return None
        kept = read_run(self.kept_records)
        means = mean_scores(kept.episodes, kept.manifest["objective"])
        return round(float(np.mean([self.oracle_score(task, mean) for task, mean in means.items()])), 4)


def _single(study: str, task: str, seeds: int, *settings: str) -> list[Run]:
    return [Run(study, f"{task}-k{k}-seed{seed}", (task,), k, seed, settings) for seed in range(seeds) for k in (1, 2)]


# Most attempts are lost by a slow drift off the track, which a discount of 0.95 does not see; and no other horizon
# beside it: what tells two pushes of a cart apart is small, and every further discount factor adds its noise. A
# velocity is the difference of two positions: a memory of 8 steps finds it twice as soon as one of 32. Near-ties are
# not imitated. Exploration goes on to the end, and data is fresh: both keep falls in the replay.
_CARTPOLE = (
    *("updates=12000", "learning.cooldown=11000", "learning.discounts=[0.98]", "learning.batch_size=192"),
    *("learning.value_samples=4", "learning.target_rate=0.02", "learning.filter_threshold=0.05"),
    *("learning.reward_multiplier=50", "model.bin_limit=20", "model.context=8"),
    *("collect.replay=50000", "collect.epsilon_end=0.2"),
    "evaluate_rollouts=200",  # one bad start in ten moves a mean of 50 by as much as it should decide
)

# 23 of the 27 actions are replaced at random, and a policy that imitates chance drops the other 4 before it has learnt
# to remember. So it explores longer, and imitates only clearly better actions.
_PREVIOUS = (
    *("updates=16000", "learning.cooldown=4000", "learning.discounts=[0.1]", "learning.batch_size=64"),
    *("learning.filter_threshold=0.2", "model.context=16", "model.bin_limit=20"),
    *("collect.epsilon_end=0.3", "collect.epsilon_steps=1000000"),
)

MIXTURE = ("RepeatFirstEasy", "HigherLowerEasy", "PositionOnlyCartPoleEasy")
RESCALED = {"RepeatFirstEasy": 100.0, "HigherLowerEasy": 0.1}
# Values of a hundredfold reward want wider bins; all runs of the study have them.
_MIXTURE = (
    *("updates=9000", "learning.cooldown=1500", "learning.batch_size=24"),
    *("model.context=64", "model.bins=128", "model.bin_limit=100000"),
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
    """Recurrent PPO on games that the reference agent learns with one attempt, for half an hour of one core each."""
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


# A step of Meta-World pays up to 10, so a return is in the thousands: it is taken as it is, and the bins are as wide.
# A goal is found in the first attempt or not at all, and seen again as steps that pay: a memory of 128 steps has them.
_ML1 = (
    *("updates=24000", "learning.cooldown=6000", "learning.reward_multiplier=1", "model.bin_limit=400"),
    *("learning.n_step=5", "learning.ema_rate=0.005", "learning.value_samples=4", "learning.rate=0.001"),
    *("model.context=128", "learning.batch_size=24", "evaluate_rollouts=30"),
    *("collect.replay=1000000", "collect.epsilon_steps=600000", "collect.num_envs=48"),
)


def _ml1(study: str, task: str) -> list[Run]:
    """One skill, three attempts at each goal: the paper's ML1."""
    return [Run(study, f"{task}-k3-seed{seed}", (task,), 3, seed, _ML1, env_id="ML10-v0") for seed in range(3)]


STUDIES: dict[str, list[Run]] = {
    "ml1-reach": _ml1("ml1-reach", "reach-v3"),
    "ml1-push": _ml1("ml1-push", "push-v3"),
    "recurrent-ppo": _baseline(),
    "babyai-two": _babyai("babyai-two", _TWO),
    "babyai-six": _babyai("babyai-six", _SIX, "updates=40000", "learning.cooldown=12000"),
    "scales": _scales(),
    "cartpole": _single("cartpole", "PositionOnlyCartPoleEasy", 3, *_CARTPOLE),
    "repeat-previous": [
        Run("repeat-previous", f"RepeatPreviousEasy-k1-seed{seed}", ("RepeatPreviousEasy",), 1, seed, _PREVIOUS)
        for seed in range(2)
    ],
    "repeat-first": _single("repeat-first", "RepeatFirstEasy", 3),
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
                score = round(r.oracle_score(task, value), 4)
                curves.append({**row, "task": task, "return": value, "oracle_score": score})
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


def table(header: list[str], rows: list[list[str]]) -> str:
    """As Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in [header, ["---"] * len(header), *rows])


def run_rows() -> str:
    """All runs."""
    curves, runs = committed()
    rows = []
    for run in runs.itertuples():
        curve = curves[(curves["study"] == run.study) & (curves["run"] == run.run)]
        by_update = curve.groupby("updates")["oracle_score"].mean()
        kept = "" if pd.isna(run.kept) else f"{run.kept:.3f}"
        scores = [f"{by_update.iloc[-1]:.3f}", f"{by_update.max():.3f}", kept]
        rows.append([run.study, run.run, *scores, f"{run.updates:,}", f"{run.steps:,}", str(run.minutes)])
    columns = ["study", "run", "score at the end", "best on the way", "kept agent", "updates", "steps", "minutes"]
    return table(columns, rows)


def final_scores() -> pd.DataFrame:
    """The last point of every curve."""
    curves, _ = committed()
    return curves[curves["updates"] == curves.groupby(["study", "run"])["updates"].transform("max")]


def scale_rows() -> str:
    """The study of rescaled rewards: final scores by update and scaling, over seeds."""
    final = final_scores()
    rows = []
    for setting, part in final[final["study"] == "scales"].groupby("setting", sort=False):
        actor, _, critic, _, rewards = setting.split("-")
        by_task = part.pivot(index="run", columns="task", values="oracle_score")[list(MIXTURE)]
        mean = by_task.mean(axis=1).to_numpy()
        cells = [f"{value:.3f}" for value in by_task.mean()]
        rows.append([actor, critic, rewards, str(len(mean)), with_interval(mean), *cells])
    return table(["actor", "critic", "rewards", "seeds", "mean", *MIXTURE], rows)


def final(setting: str, task: str = "", digits: str = "3") -> str:
    """The mean final score of a setting, over its tasks (or one) and seeds."""
    found = final_scores()
    of_task = found["task"].str.contains(task, regex=False)
    return f"{found.loc[(found['setting'] == setting) & of_task, 'oracle_score'].mean():.{digits}f}"


def seeds(setting: str, column: str, digits: str = "2") -> str:
    """A score of each seed of a setting: `end`, `best` or `kept`."""
    curves, runs = committed()
    if column == "kept":
        values = runs.loc[runs["run"].str.startswith(f"{setting}-seed"), "kept"]
    else:
        of_run = curves[curves["setting"] == setting].groupby(["run", "updates"])["oracle_score"].mean().groupby("run")
        values = of_run.last() if column == "end" else of_run.max()
    *most, last = (f"{value:.{digits}f}" for value in values)
    return f"{', '.join(most)} and {last}" if most else last


def audit_rows() -> str:
    """What kept agents do on unseen layouts: success by attempt, and what the adaptation audit measures."""
    known = {r.name: r for study in STUDIES.values() for r in study}
    rows = []
    for name in committed()[1]["run"]:
        folder = known[name].kept_records
        if not (folder / MANIFEST).exists():
            continue
        kept = read_run(folder)
        (own,) = score([kept]).agents
        if not own.audit:
            continue
        success = kept.episodes.astype({"success": float}).groupby(["task", "attempt"], sort=False)["success"].mean()
        estimates = [lost.means["oracle"] for lost in own.audit.values()]
        lost = [f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in estimates]
        for i, task in enumerate(kept.manifest["tasks"]):
            shown = f"{success[task, 1]:.3f}, {success[task, 2]:.3f}"
            rows.append([name, task, shown, *lost] if i == 0 else ["", task, shown, "", ""])
    return table(["kept agent", "task", "success, attempts 1 and 2", "memory", "this variant"], rows)


def with_interval(values: np.ndarray) -> str:
    """Mean and Student's 95% interval over seeds; one seed has none."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


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
