"""Draw the learning results from curves.csv as popgym.png, babyai.png and so on, here or in another folder.

python results/learning/figures.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from studies import BESIDE, committed  # beside this script

from mtbench.records import write_atomically
from mtbench.scoring.figures import COLOURS

HERE = Path(__file__).parent
#: Updates of the rescaling study: name in the runs, label (actor / critic, as the paper has it), colour.
UPDATES = {
    "independent-actor-independent-critic": ("Ind. / Ind.", COLOURS[0]),
    "dependent-actor-independent-critic": ("Dep. / Ind.", COLOURS[4]),
    "independent-actor-dependent-critic": ("Ind. / Dep.", COLOURS[1]),
    "dependent-actor-dependent-critic": ("Dep. / Dep.", COLOURS[5]),
}


def panels(curves: pd.DataFrame) -> Figure:
    """A panel for each setting: the score of each task over environment steps, a thin line for each seed."""
    settings = list(dict.fromkeys(curves["setting"]))
    rows = -(-len(settings) // 3)
    columns = min(3, len(settings))
    figure = Figure(figsize=(3.6 * columns, 3.0 * rows + 0.4), dpi=120, layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    colours = {task: COLOURS[i] for i, task in enumerate(dict.fromkeys(curves["task"]))}
    for axes, setting in zip(grid.flat, settings, strict=False):
        own = curves[curves["setting"] == setting]
        for (task, _), line in own.groupby(["task", "run"], sort=False):
            axes.plot(line["steps"] / 1e3, line["score"], color=colours[str(task)], linewidth=1, marker=".")
        seeds = own["run"].nunique()
        axes.set_title(f"{setting}, {seeds} seed{'s' * (seeds > 1)}", fontsize=9)
        axes.set_xlabel("thousand environment steps")
        _finish(axes)
    for axes in grid.flat[len(settings) :]:
        axes.axis("off")
    for axes in grid[:, 0]:
        axes.set_ylabel("score, oracle scale")
    handles = [grid[0, 0].plot([], [], color=colour, marker=".", label=task)[0] for task, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def popgym(curves: pd.DataFrame) -> Figure:
    """Games of POPGym."""
    return panels(curves[curves["study"] == "games"])


def babyai(curves: pd.DataFrame) -> Figure:
    """BabyAI's missions."""
    return panels(curves[curves["study"].str.startswith("babyai")])


def metaworld(curves: pd.DataFrame) -> Figure:
    """ML1."""
    return panels(curves[curves["study"].str.startswith("ml1")])


def rescaling(curves: pd.DataFrame) -> Figure:
    """Final scores by game, update and scaling of rewards; and the mean over games while training."""
    curves = curves[curves["study"] == "scales"]
    figure = Figure(figsize=(11, 4), dpi=120, layout="constrained")
    bars, lines = figure.subplots(1, 2, sharey=True)
    final = curves[curves["updates"] == curves.groupby("run")["updates"].transform("max")]
    tasks = list(dict.fromkeys(curves["task"]))
    for i, (name, (label, colour)) in enumerate(UPDATES.items()):
        for j, scaling in enumerate(("plain", "rescaled")):
            look = {"color": colour} if scaling == "plain" else {"color": "white", "edgecolor": colour, "hatch": "////"}
            scores = final[final["setting"] == f"{name}-{scaling}"].groupby("task")["score"]
            mean, least, most = (of.reindex(tasks) for of in (scores.mean(), scores.min(), scores.max()))
            places = [task + (2 * i + j - 3.5) * 0.11 for task in range(len(tasks))]
            bars.bar(places, mean, 0.1, **look)
            bars.errorbar(places, mean, [mean - least, most - mean], fmt="none", ecolor="#333333", elinewidth=0.9)
            own = curves[curves["setting"] == f"{name}-{scaling}"]
            by_run = own.groupby(["run", "updates"])["score"].mean().groupby("updates")
            style = {"color": colour, "linestyle": "-" if scaling == "plain" else "--"}
            lines.plot(by_run.mean().index, by_run.mean(), **style, label=f"{label} {scaling} ({own['run'].nunique()})")
            lines.fill_between(by_run.min().index, by_run.min(), by_run.max(), color=colour, alpha=0.12, linewidth=0)
    bars.set_xticks(range(len(tasks)), tasks, fontsize=8)
    bars.set_ylabel("score, oracle scale")
    bars.set_title("at the end (solid: rewards as they are; hatched: rescaled)", fontsize=9)
    lines.set_title("mean over the games", fontsize=9)
    lines.set_xlabel("updates")
    for axes in (bars, lines):
        _finish(axes)
    handles, labels = lines.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        title="actor / critic (seeds); whiskers and bands: least to most",
        title_fontsize=8,
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    return figure


def baseline(curves: pd.DataFrame) -> Figure:
    """The reference agent beside recurrent PPO: scores over environment steps, and over minutes of one core."""
    figure = Figure(figsize=(11, 5.6), dpi=120, layout="constrained")
    grid = figure.subplots(2, len(BESIDE), sharey=True, squeeze=False)
    handles = {}
    for column, (game, settings) in enumerate(BESIDE.items()):
        for agent, setting, colour in zip(("reference agent", "recurrent PPO"), settings, COLOURS, strict=False):
            own = curves[curves["setting"] == setting]
            for _, line in own.groupby(["run"], sort=False):
                mean = line.groupby("updates")[["steps", "seconds", "score"]].mean()
                for axes, x in zip(grid[:, column], (mean["steps"] / 1e6, mean["seconds"] / 60), strict=True):
                    (handles[agent],) = axes.plot(x, mean["score"], color=colour, linewidth=1)
        for axes, label in zip(grid[:, column], ("million environment steps", "minutes of one core"), strict=True):
            axes.set_title(game if game != "mixture" else "three games, mean", fontsize=9)
            axes.set_xlabel(label)
            _finish(axes)
    for axes in grid[:, 0]:
        axes.set_ylabel("score, oracle scale")
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def _finish(axes: Axes) -> None:
    axes.axhline(1, color="#888888", linewidth=0.8, linestyle=":")
    axes.axhline(0, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_ylim(-0.2, 1.1)
    axes.spines[["top", "right"]].set_visible(False)


FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "popgym": popgym,
    "babyai": babyai,
    "metaworld": metaworld,
    "rescaling": rescaling,
    "baseline": baseline,
}


if __name__ == "__main__":
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, draw in FIGURES.items():
        figure = draw(committed()[0])
        write_atomically(
            into / f"{name}.png",
            lambda path, figure=figure: figure.savefig(path, format="png", metadata={"Software": None}),
        )
