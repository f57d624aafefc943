"""The ``mtbench`` command: list, info, play, evaluate, score, plot, train, bench."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import gymnasium as gym
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

import mtbench
from mtbench import registration
from mtbench.errors import UnknownArgumentError, UsageError, unknown
from mtbench.options import parsed_options
from mtbench.text import plain

if TYPE_CHECKING:
    from mtbench.rollout import MetaRollout

app = typer.Typer(
    help="Multi-task meta-RL environments, evaluation and normalized scores.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)

EnvId = Annotated[str, typer.Argument(metavar="ID", help="A Gymnasium ID from `mtbench list`.")]
PolicyName = Annotated[
    str, typer.Option("--policy", help="random, oracle, a training run, module:attribute or file.py:attribute.")
]
EnvOptions = Annotated[
    list[str],
    typer.Option(
        "--env",
        metavar="KEY=VALUE",
        help="An argument of the environment, its value as JSON: --env k=1 --env 'tasks=[\"RepeatFirstEasy\"]'.",
    ),
]
SplitName = Annotated[str, typer.Option("--split", help="train or test.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seeds every draw.")]
Interval = Annotated[str, typer.Option("--interval", help="jackknife (whole runs) or stratified-bootstrap.")]
RunFolders = Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run folders, or folders of them.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        _out.print(f"mtbench {mtbench.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_ids() -> None:
    """List the environments."""
    from mtbench.suite import load_suite

    ids = _whole("ID", [row.id for row in registration.TABLE])
    table = Table(ids, "train/test tasks", "k", "objective", "package", "what it is", box=None)
    for row in registration.TABLE:
        suite = load_suite(row.kwargs["suite"])
        counts = "/".join(str(len(suite.splits[split].tasks)) for split in ("train", "test"))
        package = ", ".join(f"{name} {_installed(name)}" for name in suite.distributions)
        arguments = row.kwargs
        table.add_row(
            row.id, counts, str(arguments["k"]), arguments["objective"], package, row.summary, style="default"
        )
    _out.print(table)


@app.command()
def info(
    env_id: EnvId,
    figure: Annotated[Path | None, typer.Option(help="Write a contact sheet of all tasks (PNG).")] = None,
    env: EnvOptions = [],  # noqa: B006 (typer's way of saying none)
) -> None:
    """Say what an environment is: spaces, splits, tasks, references."""
    from mtbench.scoring.references import load_references

    rollout = _make(env_id, env, render_mode="rgb_array" if figure else None)
    suite = rollout.suite
    references = load_references(suite.name)
    _out.print(f"{registration.find(env_id).id}: {suite.title}, k = {rollout.k} attempts, {rollout.objective}")
    _out.print(escape(f"observation   {_short(rollout.observation_space)}"))
    _out.print(escape(f"action        {_short(rollout.action_space)}"))
    _out.print(f"variants      {suite.attempt_variants} in every attempt")
    for split in suite.splits.values():
        more = f" ({len(split.also)} more by name)" if split.also else ""
        levels = f"variants {split.variants}, for evaluation {split.evaluation}"
        _out.print(escape(f"{split.name:13} {len(split.tasks)} tasks{more}; {levels}"))
    entries = {anchor.entry: None for scale in references.scales.values() for anchor in _anchors(scale)}
    rows = []
    for task in rollout.tasks:
        ends = [end for scale in references.scales.values() for end in (scale.low, scale.high)]
        known = {end[task].entry: end[task] for end in ends if task in end}
        cells = [f"{known[entry].value:.3f}" if entry in known else "-" for entry in entries]
        rows.append([task, str(suite.tasks[task].max_steps), *cells])
    columns = zip(["task", "longest attempt", *entries], zip(*rows, strict=True), strict=True)
    table = Table(*(_whole(name, cells) for name, cells in columns), box=None)
    for row in rows:
        table.add_row(*row)
    _out.print(table, crop=False)
    for task, twin in suite.repeats.items():
        _out.print(f"{task} (test) is the same environment as {twin} (train): scores are given with and without it.")
    for entry in entries:
        _out.print(f"{entry}: {references.sources[entry]}", markup=False)
    if figure:
        _write_contact_sheet(rollout, figure)
    rollout.close()


@app.command()
def play(
    env_id: EnvId,
    policy: PolicyName = "random",
    task: Annotated[str | None, typer.Option(help="Pin the task.")] = None,
    variant: Annotated[int | None, typer.Option(help="Pin the variant.")] = None,
    video: Annotated[Path | None, typer.Option(help="Write a video: out.mp4 or out.gif.")] = None,
    split: SplitName = "train",
    seed: Seed = 0,
    env: EnvOptions = [],  # noqa: B006
) -> None:
    """Play one meta-rollout and print what happened."""
    from mtbench.pictures import check_video_path, write_video
    from mtbench.play import Playthrough
    from mtbench.policy import load_policy

    if video:
        check_video_path(video)
    rollout = _make(env_id, env, split=split, render_mode="rgb_array" if video else None)
    pinned = {name: value for name, value in (("task", task), ("variant", variant)) if value is not None}
    played = Playthrough(rollout, load_policy(policy), seed, pinned)
    if video:
        write_video(played.frames(), video, rollout.metadata["render_fps"])
    else:
        played.run()
    table = Table("attempt", "return", "length", *(["success"] if rollout.suite.has_success else []), box=None)
    statistics = played.statistics
    for i in range(rollout.k):
        cells = [str(i + 1), f"{statistics['returns'][i]:.4f}", str(statistics["lengths"][i])]
        if rollout.suite.has_success:
            cells.append("yes" if statistics["successes"][i] else "no")
        table.add_row(*cells)
    _out.print(f"{env_id}: {plain(policy)} played {rollout.task}", markup=False)
    _out.print(table)
    if video:
        _out.print(f"wrote {plain(video, None)}", markup=False)
    rollout.close()


@app.command()
def evaluate(
    env_id: EnvId,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's folder.")],
    policy: PolicyName = "random",
    rollouts_per_task: Annotated[int, typer.Option("--rollouts-per-task", min=1, metavar="N")] = 20,
    split: SplitName = "test",
    agent: Annotated[str | None, typer.Option(help="Name for tables; by default the policy's.")] = None,
    seed: Seed = 0,
    num_envs: Annotated[int, typer.Option("--num-envs", min=1, help="Environments played at once.")] = 32,
    train_seed: Annotated[int | None, typer.Option(help="Seed of the agent's training run.")] = None,
    step: Annotated[int | None, typer.Option(help="Environment steps the agent was trained for.")] = None,
    env: EnvOptions = [],  # noqa: B006
) -> None:
    """Evaluate a policy on every task and write a run folder; the same command resumes."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from mtbench.evaluation import evaluate as run_evaluation
    from mtbench.signals import Terminated, sigterm_interrupts

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rollouts"))
    progress_bar = Progress(*columns, TimeElapsedColumn(), console=_err, transient=True)
    with sigterm_interrupts(), progress_bar as progress:
        bar = progress.add_task(escape(f"{plain(agent or policy)} on {env_id}"), total=None)
        played = False

        def show(done: int, total: int) -> None:
            nonlocal played
            played = True
            progress.update(bar, completed=done, total=total)

        try:
            run = run_evaluation(
                env_id,
                policy,
                out,
                split=split,
                rollouts_per_task=rollouts_per_task,
                agent=agent,
                seed=seed,
                num_envs=num_envs,
                env_kwargs=_env_kwargs(env),
                train_seed=train_seed,
                step=step,
                command=["mtbench", *sys.argv[1:]],
                on_rollout=show,
            )
        except KeyboardInterrupt as interruption:
            progress.stop()
            _err.print("Interrupted. Finished parts are kept; the same command goes on from there.")
            raise typer.Exit(143 if isinstance(interruption, Terminated) else 130) from None
    folder = plain(run.path, None)
    if not played:
        _out.print(f"{folder}: finished already ({run.manifest['started']}), nothing was played", markup=False)
    else:
        _out.print(f"{folder}: {len(run.episodes)} attempts, {run.manifest['seconds']:.1f} s", markup=False)


@app.command()
def score(
    folders: RunFolders,
    format: Annotated[str, typer.Option("--format", help="md, csv, json, latex or html.")] = "md",
    interval: Interval = "jackknife",
    seed: Seed = 0,
) -> None:
    """Print normalized score tables of one or more runs."""
    from mtbench.scoring import score as score_runs
    from mtbench.scoring.report import FORMATS, render

    if format not in FORMATS:
        raise unknown("format", format, list(FORMATS), "mtbench score")
    sys.stdout.write(render(score_runs(_read_runs(folders), seed=seed, interval=interval), format))


@app.command()
def plot(
    folders: RunFolders,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A .png, .svg or .pdf file.")],
    scale: Annotated[str | None, typer.Option(help="A scale of the suite; by default its first.")] = None,
    interval: Interval = "jackknife",
    seed: Seed = 0,
) -> None:
    """Draw normalized scores of one or more runs."""
    from mtbench.scoring import score as score_runs
    from mtbench.scoring.figures import save_figure

    save_figure(score_runs(_read_runs(folders), seed=seed, interval=interval), out, scale)
    _out.print(f"wrote {plain(out, None)}", markup=False)


def _add_agent_commands() -> None:
    """``train`` and ``bench agent`` belong to the reference agent; PyTorch loads when they run."""
    from mtbench_agents.transformer.cli import bench_agent, train

    app.command()(train)
    bench = typer.Typer(help="Time the reference agent.", no_args_is_help=True)
    bench.callback()(lambda: None)
    bench.command("agent")(bench_agent)
    app.add_typer(bench, name="bench")


def main() -> NoReturn:
    """Run the command line; errors that explain themselves come without a traceback."""
    _add_agent_commands()
    try:
        app()
    except (UsageError, UnknownArgumentError, gym.error.DependencyNotInstalled, gym.error.InvalidAction) as error:
        _err.print(f"[red]error:[/red] {escape(plain(error, None))}", soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.filename is None:
            raise
        _err.print(f"[red]error:[/red] {escape(plain(f'{error.filename}: {error.strerror}', None))}", soft_wrap=True)
        sys.exit(2)
    sys.exit(0)


# ---- helpers ----


def _make(env_id: str, options: list[str], **kwargs: Any) -> MetaRollout:
    from mtbench.rollout import MetaRollout

    rollout = gym.make(registration.find(env_id).id, **{**kwargs, **_env_kwargs(options)}).unwrapped
    assert isinstance(rollout, MetaRollout)
    return rollout


def _env_kwargs(options: list[str]) -> dict[str, Any]:
    """``--env`` options as keyword arguments of the environment."""
    from mtbench.evaluation import ENV_KWARGS

    kwargs = parsed_options(options)
    for key in kwargs:
        if key not in ENV_KWARGS:
            raise unknown("environment argument", key, ENV_KWARGS, "--env")
    return kwargs


def _read_runs(folders: list[Path]) -> list[Any]:
    """Every run named, or inside a folder named; an unfinished one is an error, not left out."""
    from mtbench.evaluation import is_run
    from mtbench.records import read_run

    runs = []
    for folder in folders:
        inside = [path for path in sorted(folder.glob("*")) if is_run(path)]
        runs += [read_run(path) for path in (inside if inside and not is_run(folder) else [folder])]
    return runs


def _write_contact_sheet(rollout: MetaRollout, path: Path) -> None:
    from mtbench.errors import unknown
    from mtbench.pictures import contact_sheet, write_image
    from mtbench.play import Playthrough
    from mtbench.policy import load_policy

    if path.suffix != ".png":
        raise unknown("figure format", path.suffix, [".png"], "mtbench info")
    frames = []
    for task in rollout.tasks:
        played = Playthrough(rollout, load_policy("random"), 0, {"task": task})
        halfway = min(20, rollout.suite.tasks[task].max_steps // 3)
        frames.append([frame for frame, _ in zip(played.frames(), range(halfway), strict=False)][-1])
    columns = min(len(frames), 4 if len(frames) <= 4 else 3 if len(frames) <= 30 else 8)
    write_image(contact_sheet(frames, columns=columns, width=320 if columns < 8 else 240), path)
    _out.print(f"wrote {plain(path, None)}", markup=False)


def _whole(name: str, cells: Sequence[str]) -> Column:
    """A table's column that a narrow terminal does not cut."""
    return Column(name, min_width=max(map(len, [name, *cells])))


def _anchors(scale: Any) -> list[Any]:
    return [*scale.low.values(), *scale.high.values()]


def _short(space: gym.Space[Any]) -> str:
    if isinstance(space, gym.spaces.Box):
        return f"Box{space.shape} {space.dtype}, [{space.low.min():g}, {space.high.max():g}]"
    return str(space)


def _installed(distribution: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"
