"""The tables of the page beside this file, of curves.csv, runs.csv and the kept agents' records.

``python results/pages.py`` puts them there.
"""

import numpy as np
import pandas as pd
from markdown_table import table  # pages.py finds it, and the script beside this one
from scipy import stats
from studies import BESIDE, GAMES, HERE, MIXTURE, STUDIES, committed

from mtbench.records import MANIFEST, Run, read_run
from mtbench.scoring import score
from mtbench.scoring.tables import bracket


def run_rows() -> str:
    """All runs."""
    curves, runs = committed()
    rows = []
    for run in runs.itertuples():
        curve = curves[(curves["study"] == run.study) & (curves["run"] == run.run)]
        by_update = curve.groupby("updates")["score"].mean()
        kept = "" if pd.isna(run.kept) else f"{run.kept:.3f}"
        scores = [f"{by_update.iloc[-1]:.3f}", f"{by_update.max():.3f}", kept]
        rows.append([run.study, run.run, *scores, f"{run.updates:,}", f"{run.steps:,}", str(run.minutes)])
    columns = ["study", "run", "score at the end", "best on the way", "kept agent", "updates", "steps", "minutes"]
    return table(columns, rows)


def game_rows() -> str:
    """POPGym's games with one preset: how the agents at the end of training play the final cases, over seeds."""
    minutes = committed()[1].set_index("run")["minutes"]
    rows = []
    for name, (tasks, _) in GAMES.items():
        own = [r for r in STUDIES["games"] if r.name.startswith(f"{name}-seed") and r.name in minutes.index]
        taken = f"{minutes[[r.name for r in own]].mean():.1f}"
        kept = pd.DataFrame([r.kept_scores for r in own])
        for task in tasks:
            scores = kept[task].to_numpy()
            cells = [str(len(own)), with_interval(scores), f"{scores.min():.3f}"]
            rows.append([name, task, *cells, taken] if task == tasks[0] else ["", task, *cells, ""])
    return table(["run", "game", "seeds", "score", "the least of them", "minutes"], rows)


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
        by_task = part.pivot(index="run", columns="task", values="score")[list(MIXTURE)]
        mean = by_task.mean(axis=1).to_numpy()
        cells = [f"{value:.3f}" for value in by_task.mean()]
        rows.append([actor, critic, rewards, str(len(mean)), with_interval(mean), *cells])
    return table(["actor", "critic", "rewards", "seeds", "mean", *MIXTURE], rows)


def final(setting: str, task: str = "", digits: str = "3") -> str:
    """The mean final score of a setting, over its tasks (or one) and seeds."""
    found = final_scores()
    of_task = found["task"].str.contains(task, regex=False)
    return f"{found.loc[(found['setting'] == setting) & of_task, 'score'].mean():.{digits}f}"


def audit_rows() -> str:
    """What kept agents do where attempts can succeed: success by attempt, and what the adaptation audit measures."""
    known = {r.name: r for study in STUDIES.values() for r in study}
    rows = []
    for name in committed()[1]["run"]:
        folder = known[name].kept_records
        if not (folder / MANIFEST).exists():
            continue
        kept = read_run(folder)
        (own,) = score([kept]).agents
        if not (own.audit and own.success):
            continue
        share = _success(kept)
        lost = [bracket(measure.means["oracle"]) for measure in own.audit.values()]
        for i, task in enumerate(kept.manifest["tasks"]):
            shown = [", ".join(f"{of_attempt:.3f}" for of_attempt in share[task]), bracket(own.adaptation[task])]
            rows.append([name, task, *shown, *lost] if i == 0 else ["", task, *shown, "", ""])
    return table(["kept agent", "task", "success by attempt", "adaptation", "memory", "this variant"], rows)


def return_rows(setting: str, task: str) -> str:
    """Returns of scripted policies and of each seed's kept agent on the same cases, and what the audit measures."""
    rows = []
    for folder in sorted((HERE / "kept").glob(f"{setting}-*")):
        (own,) = score([read_run(folder)]).agents
        measures = own.audit.values()
        estimates = [own.returns[task], *own.attempts[task], *(measure.returns[task] for measure in measures)]
        rows.append([folder.name, *map(bracket, estimates), *([] if measures else ["", ""])])
    attempts = [f"attempt {1 + i}" for i in range(len(rows[0]) - 4)]
    return table(["policy", "mean return", *attempts, "memory", "this variant"], rows)


def _after(curves: pd.DataFrame, column: str, budget: float) -> np.ndarray:
    """Each seed's score at its last evaluation within a budget of `steps` or `seconds`."""
    within = curves[curves[column] <= budget]
    last = within[within["updates"] == within.groupby("run")["updates"].transform("max")]
    return last.groupby("run")["score"].mean().to_numpy()


def baseline_rows() -> str:
    """Recurrent PPO beside the reference agent: after as many steps, after as much time, and at its own end."""
    curves, _ = committed()
    rows = []
    for game, (reference, baseline) in BESIDE.items():
        own, other = (curves[curves["setting"] == setting] for setting in (reference, baseline))
        steps, seconds = own[["steps", "seconds"]].max()  # no less than any seed had
        for agent, of in (("reference", own), ("recurrent PPO", other)):
            end = of.groupby("run")[["steps", "seconds"]].max()
            cells = [with_interval(_after(of, "steps", steps)), with_interval(_after(of, "seconds", seconds))]
            cells += [with_interval(_after(of, "steps", np.inf)), f"{end['steps'].mean() / 1e6:.2f}"]
            rows.append([game, agent, str(len(end)), *cells, f"{end['seconds'].mean() / 60:.1f}"])
    header = ["games", "agent", "seeds", "at equal steps", "at equal time", "at its end", "million steps", "minutes"]
    return table(header, rows)


def success(name: str, task: str, attempt: str) -> str:
    """The share of a kept agent's attempts of this number that succeed."""
    return f"{_success(read_run(HERE / 'kept' / name))[task, int(attempt)]:.3f}"


def _success(kept: Run) -> pd.Series:
    """The share of attempts that succeed, by task and attempt."""
    return kept.episodes.astype({"success": float}).groupby(["task", "attempt"], sort=False)["success"].mean()


def with_interval(values: np.ndarray) -> str:
    """Mean and Student's 95% interval over seeds; one seed has none."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"
