"""The commands on finished evaluations: score, compare, plot, report, verify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtbench.cli_options import Address, AsJson, BackendName, Interval, Jobs, RunFolders, Seed, SkipUnfinished
from mtbench.errors import UsageError, unknown_name_error
from mtbench.printing import counting, progress_bar, say, say_json, shown_path, tell

if TYPE_CHECKING:
    from mtbench.records import Run
    from mtbench.verification import Verification

_MOST_SHOWN = 20


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    for command in (score, compare, plot, report, verify):
        app.command()(command)


def score(
    folders: RunFolders,
    format: Annotated[str, typer.Option("--format", help="md, csv, json, latex or html.")] = "md",
    export: Annotated[
        str | None, typer.Option("--export", help="rliable: normalized scores by agent, run and task, as JSON.")
    ] = None,
    interval: Interval = "jackknife",
    seed: Seed = 0,
    skip_unfinished: SkipUnfinished = False,
) -> None:
    """Print normalized score tables of one or more runs."""
    from mtbench.scoring import score as score_runs
    from mtbench.scoring.report import FORMATS, for_rliable, render

    if format not in FORMATS:
        raise unknown_name_error("format", format, list(FORMATS), "mtbench score")
    if export not in (None, "rliable"):
        raise unknown_name_error("layout", export, ["rliable"], "mtbench score --export")
    scores = score_runs(_read_runs(folders, skip_unfinished), seed=seed, interval=interval)
    sys.stdout.write(for_rliable(scores) if export else render(scores, format))


def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run, or a folder of one agent's runs.")],
    two: Annotated[Path, typer.Argument(metavar="B", help="Likewise, of another agent on the same environment.")],
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Print how much more A scores than B, paired by case, per task and overall."""
    from dataclasses import asdict

    from mtbench.scoring.comparison import compare as compare_runs
    from mtbench.scoring.report import markdown_table
    from mtbench.text import for_markdown

    found = compare_runs(_read_runs([one], False), _read_runs([two], False), seed=seed)
    if as_json:
        say_json(asdict(found))
        return
    table = found.table()
    sys.stdout.write(f"### {for_markdown(table.title)}\n\n{markdown_table(table)}\n- {for_markdown(found.note)}\n")


def plot(
    folders: RunFolders,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A .png, .svg or .pdf file.")],
    scale: Annotated[str | None, typer.Option(help="A scale of the suite; by default its first.")] = None,
    by: Annotated[str, typer.Option(help="task (scores, profiles) or attempt (returns from first to last).")] = "task",
    interval: Interval = "jackknife",
    seed: Seed = 0,
    skip_unfinished: SkipUnfinished = False,
) -> None:
    """Draw normalized scores of one or more runs."""
    from mtbench.scoring import score as score_runs
    from mtbench.scoring.figures import save_figure

    save_figure(score_runs(_read_runs(folders, skip_unfinished), seed=seed, interval=interval), out, scale, by)
    say(f"wrote {shown_path(out)}")


def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Run folders, folders of them, or training runs.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder for the pages and figures.")],
    interval: Interval = "jackknife",
    seed: Seed = 0,
    skip_unfinished: SkipUnfinished = False,
) -> None:
    """Write a report: one HTML page that needs nothing else, the same as Markdown, and every figure."""
    from mtbench.api import run_folders
    from mtbench.evaluation import is_run, is_training_run
    from mtbench.reports import write_report
    from mtbench.reports.curves import read_curve

    training: list[Path] = []
    evaluated: list[Path] = []
    for folder in folders:
        inside = [path for path in (folder, *sorted(folder.glob("*"))) if is_training_run(path)]
        found = [path for path in run_folders(folder) if is_run(path)]
        training += inside
        evaluated += found if found or inside else [folder]  # reading it says what is wrong
    runs = _read_runs(evaluated, skip_unfinished) if evaluated else []
    curves = [curve for curve in map(read_curve, training) if curve is not None]
    page = write_report(runs, curves, out, seed=seed, interval=interval)
    say(f"wrote {shown_path(page)}")


def verify(
    folders: RunFolders,
    jobs: Jobs = None,
    backend: BackendName = "local",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Play recorded actions again and compare every return, length and success, to the last bit.

    Needs runs of `mtbench evaluate --save-actions`. Exits with 1 where something differs.
    """
    results = []
    for run in _read_runs(folders, skip_unfinished=False):
        for each in run.conditions:
            found = _verified(each, jobs=jobs, backend=backend, address=address)
            results.append(found)
            if not as_json:
                _tell_verified(found)
    if as_json:
        say_json(
            [
                {
                    **{"run": shown_path(found.run.name), "rollouts": found.rollouts, "steps": found.steps},
                    **{"action_bytes": found.action_bytes, "seconds": round(found.seconds, 3)},
                    "differences": found.differences,
                }
                for found in results
            ]
        )
    if any(found.differences for found in results):
        raise typer.Exit(1)


def _verified(run: Run, **how: Any) -> Verification:
    from mtbench.verification import verify as verify_run

    with progress_bar("rollouts") as progress:
        return verify_run(run, **how, on_rollout=counting(progress, shown_path(run.name)))


def _tell_verified(found: Verification) -> None:
    size = f"{found.rollouts:,} rollouts, {found.steps:,} steps, {found.action_bytes:,} bytes of actions"
    if not found.differences:
        say(f"{shown_path(found.run.name)}: as recorded, to the last bit ({size}, {found.seconds:.1f} s)")
        return
    say(f"{shown_path(found.run.name)}: {len(found.differences):,} differences ({size})")
    for sentence in found.differences[:_MOST_SHOWN]:
        say(f"  {sentence}", indent=4)
    if len(found.differences) > _MOST_SHOWN:
        say(f"  ... and {len(found.differences) - _MOST_SHOWN:,} more (--json has all)")


def _read_runs(folders: list[Path], skip_unfinished: bool) -> list[Run]:
    """Read every run in these folders; an unfinished or damaged one is an error, or named and left out."""
    from mtbench.api import run_folders
    from mtbench.evaluation import is_run
    from mtbench.records import RecordError, read_run

    runs: list[Run] = []
    for path in (path for folder in folders for path in run_folders(folder)):
        try:
            runs.append(read_run(path))
        except RecordError as error:
            if not skip_unfinished or not is_run(path):
                raise
            tell(f"left out: {error}")
    if not runs:
        raise UsageError(f"No evaluation in {', '.join(map(str, folders))} is finished: there is nothing to score.")
    return runs
