"""The tables of README.md and of the pages in this folder that are made of runs; pages.py puts them there."""

from pathlib import Path

import pandas as pd
from markdown_table import table

from mtbench.records import Run, read_run
from mtbench.scoring import Estimate, score
from mtbench.scoring.references import load_references
from mtbench.scoring.report import summary
from mtbench.scoring.scores import AgentScores
from mtbench.suites.babyai import TEST_TASKS, TRAIN_TASKS
from mtbench.suites.procgen import GAMES, MEMORY_GAMES

HERE = Path(__file__).parent


def run(folder: str) -> Run:
    """A committed run."""
    return read_run(HERE / folder)


def scores_of(folder: str) -> AgentScores:
    """Its scores."""
    return score([run(folder)]).agents[0]


def bracket(estimate: Estimate, digits: int) -> str:
    """A number with its interval."""
    value, low, high = (f"{v:,.{digits}f}" for v in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def aggregates(folder: str) -> str:
    """Aggregate scores of all runs of a folder."""
    return summary(score([read_run(path.parent) for path in sorted((HERE / folder).glob("*/manifest.json"))]))


def quickstart() -> str:
    """What `make quickstart` prints, in short: returns by game."""
    agents = {name: scores_of(f"quickstart/{name}").returns for name in ("random", "agent", "oracle")}
    rows = [[task, *(bracket(own[task], 2) for own in agents.values())] for task in agents["agent"]]
    return table(["game", *(f"{name}: return" for name in agents)], rows)


def babyai() -> str:
    """Returns and successes of both attempts, mean over the tasks of a split."""
    rows = []
    for split in ("train", "test"):
        row = []
        for agent in ("random", "oracle"):
            episodes = run(f"MTBabyAI-v0/{split}/{agent}").episodes
            row += [f"{episodes['return'].mean():.3f}", f"{episodes['success'].astype(float).mean():.4f}"]
        rows.append([f"{split} ({episodes['task'].nunique()})", *row])
    return table(["split", "random: return", "random: success", "planner: return", "planner: success"], rows)


def meta_world() -> str:
    """The same of three attempts at each of 50 goals, and coverage; by split."""
    rows, below = [], []
    for env_id in ("ML45-v0", "ML10-v0"):
        for split in ("train", "test"):
            row = []
            for agent in ("random", "oracle"):
                episodes = run(f"{env_id}/{split}/{agent}").episodes
                row += [f"{episodes['return'].mean():,.0f}", f"{episodes['success'].astype(float).mean():.3f}"]
            success = episodes.groupby("task")["success"].mean()
            below += [
                f"{task.removesuffix('-v3')} {success[task]:.2f} ({env_id})" for task in success.index[success < 0.9]
            ]
            coverage = scores_of(f"{env_id}/{split}/oracle").successes["coverage"].value
            rows.append([env_id, f"{split} ({episodes['task'].nunique()})", *row, f"{coverage:.3f}"])
    columns = ("random: return", "random: success", "scripted: return", "scripted: success", "scripted: coverage")
    return f"{table(['ID', 'split', *columns], rows)}\nScripted policies below 0.9: {', '.join(below) or 'none'}.\n"


def procgen() -> str:
    """Random play of every game beside R_min and R_max."""
    suites = {"MTProcgen-Easy-v0": "procgen-easy", "MTProcgen-MemoryHard-v0": "procgen-memory-hard"}
    columns = []
    for env_id, suite in suites.items():
        scale, earned = load_references(suite).scales["published"], scores_of(f"{env_id}/random").returns
        columns.append(
            {g: [bracket(earned[g], 2), f"{scale.low[g].value:g}", f"{scale.high[g].value:g}"] for g in GAMES}
        )
    rows = [
        [f"{game}{' (memory)' * (game in MEMORY_GAMES)}", *(cell for column in columns for cell in column[game])]
        for game in GAMES
    ]
    ends = ["R_min", "R_max"]
    return table(["game", "easy: random", *ends, "memory or hard: random", *ends], rows)


def atari() -> str:
    """Random play of ten games beside the published scores."""
    earned, scales = scores_of("MTAtari-v0/random").returns, load_references("atari").scales
    rows = [
        [
            game,
            bracket(estimate, 1),
            *(f"{end[game].value:,.1f}" for end in (scales["human"].low, scales["human"].high)),
            f"{scales['human-mnih2015'].high[game].value:,.1f}",
        ]
        for game, estimate in earned.items()
    ]
    return table(["game", "random here", "random", "human (Wang 2016)", "human (Mnih 2015)"], rows)


def anchors() -> str:
    """How many rollouts each suite's anchors took, and the largest standard error that is left."""
    rows, uncertain = [], []
    for path in sorted((HERE / "anchors").glob("*.csv")):
        measured = pd.read_csv(path)
        above = measured[measured["sem_of_scale"] >= 0.005]
        uncertain += [f"{row.task} ({path.stem}, {row.agent}: {row.sem_of_scale:.3f})" for row in above.itertuples()]
        for agent, own in measured.groupby("agent", sort=False):
            rollouts = f"{own['rollouts'].min():,} to {own['rollouts'].max():,}"
            rows.append([path.stem, str(agent), str(len(own)), rollouts, f"{own['sem_of_scale'].max():.4f}"])
    text = table(["suite", "end", "tasks", "rollouts of a task", "largest standard error, of the scale"], rows)
    return text + (f"\nAbove 0.005: {', '.join(uncertain)}.\n" if uncertain else "")


def audit() -> str:
    """What the adaptation audit says of each agent: means over tasks on the oracle scale."""
    rows = []
    kept = sorted((HERE / "learning" / "kept").glob("*goto*"))
    for folder in [*(path.parent for path in sorted((HERE / "audit").glob("*/manifest.json"))), *kept]:
        one = read_run(folder)
        (own,) = score([one]).agents
        tasks = one.manifest["tasks"]
        where = f"{one.manifest['env_id']}, {len(tasks)} tasks" if len(tasks) > 1 else tasks[0]
        cells = [own.aggregates["oracle"]["mean"], *(lost.means["oracle"] for lost in own.audit.values())]
        shown = [bracket(each, 3) for each in cells]
        rows.append([where, own.agent, *shown, *["new each time"] * (3 - len(shown))])
    return table(["environment", "agent", "score", "memory", "this variant"], rows)


def babyai_repeats(split: str) -> str:
    """The tasks of a split whose layouts were seen twice: how many there are, and how often evaluation repeats them."""
    measured = pd.read_csv(HERE / "babyai" / "repeats.csv")
    rows = []
    of_split = measured[(measured["split"] == split) & (measured["played_seeds"] == measured["played_seeds"].max())]
    for row in of_split.sort_values("repeated_share", ascending=False, kind="stable").itertuples():
        extra = "" if row.task in (*TRAIN_TASKS, *TEST_TASKS) else " (extra)"
        name = row.task.removeprefix("BabyAI-").rpartition("-v")[0]
        rows.append([name + extra, f"{row.distinct_played_layouts:,}", f"{100 * row.repeated_share:.1f} %"])
    return table(["task", "distinct layouts among 5,001", "evaluation layouts that repeat one of them"], rows)


def planner_missed() -> str:
    """In how many layouts of which tasks BabyAI's planner fails."""
    runs = [run(f"MTBabyAI-v0/{split}/oracle").episodes for split in ("train", "test")]
    first = pd.concat([episodes[episodes["attempt"] == 1] for episodes in runs])
    solved = first.astype({"success": float}).groupby("task", sort=False)["success"]
    missed = [
        f"{int(count)} of {solved.size()[task]} of {task.removeprefix('BabyAI-').rpartition('-v')[0]}"
        for task, count in solved.sum().items()
        if count < solved.size()[task]
    ]
    whole = solved.ngroups - len(missed)
    return f"in every layout of {whole} tasks, and in {', '.join(missed[:-1])} and {missed[-1]}"


def procgen_overlap() -> str:
    """The share of Procgen's test levels that training plays, in games that have any."""
    share = pd.read_csv(HERE / "procgen" / "overlap.csv").pivot(
        index="game", columns="mode", values="test_levels_seen_in_training_percent"
    )[["easy", "hard", "memory"]]
    share = share[share.max(axis=1) > 0].sort_values("easy", ascending=False)
    rows = [[str(game), *("-" if pd.isna(v) else f"{v:.2f} %" for v in own)] for game, *own in share.itertuples()]
    return table(["game", *share.columns], rows)
