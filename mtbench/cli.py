"""The ``mtbench`` command: list, info, play, evaluate, score, plot, train, bench."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import gymnasium as gym
import typer

import mtbench
from mtbench import registration
from mtbench.cli_leaderboard import leaderboard
from mtbench.cli_options import (
    Address,
    AsJson,
    BackendName,
    EnvId,
    EnvOptions,
    PolicyName,
    Seed,
    SplitName,
    SuiteModules,
)
from mtbench.cli_runs import add_commands
from mtbench.errors import UnknownArgumentError, UsageError, unknown_name_error
from mtbench.options import parsed_options
from mtbench.printing import print_table, progress_bar, say, say_json, shown_path, tell, tell_error
from mtbench.text import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtbench.play import Playthrough
    from mtbench.rollout import MetaRollout
    from mtbench.suite import Frame

app: typer.Typer = typer.Typer(
    help="Multi-task meta-RL environments, evaluation and normalized scores.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from mtbench.provenance import git_commit

        commit = git_commit()
        say(f"mtbench {mtbench.__version__}" + (f" ({commit})" if commit else ""))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_ids(as_json: AsJson = False) -> None:
    """List the environments."""
    if as_json:
        from mtbench.facts import listed

        say_json(listed())
    else:
        from mtbench.catalogue import print_list

        print_list()


@app.command()
def info(
    env_id: EnvId,
    split: Annotated[str, typer.Option("--split", help="The split whose tasks are named, such as test.")] = "train",
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a contact sheet of these tasks (PNG).")
    ] = None,
    as_json: AsJson = False,
    env: EnvOptions = [],  # noqa: B006 (typer's way of saying none)
) -> None:
    """Say what an environment is: spaces, splits, tasks, references."""
    from mtbench.catalogue import print_info
    from mtbench.facts import described

    rollout = _make(env_id, env, split=split, render_mode="rgb_array" if figure else None)
    content = described(registration.find(env_id).id, rollout)
    if as_json:
        say_json(content)
    else:
        print_info(rollout, content)
    if figure:
        _write_contact_sheet(rollout, figure)
        tell(f"wrote {shown_path(figure)}")
    rollout.close()


@app.command()
def play(
    env_id: EnvId,
    policy: PolicyName = "random",
    task: Annotated[str | None, typer.Option(help="Pin the task.")] = None,
    variant: Annotated[int | None, typer.Option(help="Pin the variant.")] = None,
    video: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a video: out.mp4 or out.gif.")] = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Draw every Nth step; the speed stays. Default: at most 25 pictures per second."
        ),
    ] = None,
    split: SplitName = "train",
    seed: Seed = 0,
    env: EnvOptions = [],  # noqa: B006
) -> None:
    """Play one meta-rollout and print what happened. A video of a trained agent also shows which return it expects."""
    from mtbench.pictures import check_every, check_video_path, write_video
    from mtbench.play import Playthrough
    from mtbench.policy import load_policy

    if video:
        check_video_path(video)
    elif every is not None:
        raise UsageError("--every says which steps a video shows: give --video too.")
    rollout = _make(env_id, env, split=split, render_mode="rgb_array" if video else None)
    pinned = {name: value for name, value in (("task", task), ("variant", variant)) if value is not None}
    played = Playthrough(rollout, load_policy(policy), seed, pinned)
    if video:
        fps = rollout.metadata["render_fps"]
        every = check_every(video, fps, every)
        write_video(_with_progress(played, rollout, every), video, fps / every)
    else:
        played.run()
    say(f"{env_id}: {plain(policy)} played {rollout.task}")
    columns = ["attempt", "return", "length", *(["success"] if rollout.suite.has_success else [])]
    statistics = played.statistics
    rows = [[str(i + 1), f"{statistics['returns'][i]:.4f}", str(statistics["lengths"][i])] for i in range(rollout.k)]
    for cells, success in zip(rows, statistics.get("successes", ()), strict=False):
        cells.append("yes" if success else "no")
    print_table(columns, rows)
    if video:
        say(f"wrote {shown_path(video)}")
    rollout.close()


@app.command()
def evaluate(
    env_id: EnvId,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's folder.")],
    policy: PolicyName = "random",
    rollouts_per_task: Annotated[int, typer.Option("--rollouts-per-task", min=1, metavar="N")] = 20,
    split: Annotated[str | None, typer.Option("--split", help="train or test.", show_default="test")] = None,
    cases: Annotated[
        str, typer.Option("--cases", help="evaluation, or validation (of the train split) to choose between models.")
    ] = "evaluation",
    agent: Annotated[str | None, typer.Option(help="Name for tables; by default the policy's.")] = None,
    seed: Seed = 0,
    num_envs: Annotated[
        int | None,
        typer.Option(
            "--num-envs",
            min=1,
            help="Environments that each process plays at once. Default: 32 for an agent, else 8 to 256.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            min=1,
            help="Processes that play. Default: one for each core, if it takes more than a few seconds.",
            show_default=False,
        ),
    ] = None,
    backend: BackendName = "local",
    address: Address = None,
    train_seed: Annotated[int | None, typer.Option(help="Seed of the agent's training run.")] = None,
    step: Annotated[int | None, typer.Option(help="Environment steps the agent was trained for.")] = None,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Also play the same cases without memory between attempts, and with other variants."
        ),
    ] = False,
    save_actions: Annotated[
        bool, typer.Option("--save-actions", help="Also keep every action, for `mtbench verify`.")
    ] = False,
    isolated: Annotated[
        bool,
        typer.Option("--isolated", help="Lock the policy into a process that sees observations and rewards."),
    ] = False,
    env: EnvOptions = [],  # noqa: B006
) -> None:
    """Evaluate a policy on every task and write a run folder; the same command resumes."""
    from mtbench.cases import USES
    from mtbench.evaluation import evaluate as run_evaluation
    from mtbench.signals import Terminated, sigterm_interrupts

    began = time.monotonic()
    if cases not in USES:
        raise unknown_name_error("kind of cases", cases, USES, "mtbench evaluate")
    if split is None and cases == "validation":
        split = "train"
    with sigterm_interrupts(), progress_bar("rollouts") as progress:
        bar = progress.add_task(f"{plain(agent or policy)} on {env_id}", total=None)
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
                split=split or "test",
                cases=cases,
                rollouts_per_task=rollouts_per_task,
                agent=agent,
                seed=seed,
                num_envs=num_envs,
                jobs=jobs,
                backend=backend,
                address=address,
                env_kwargs=_env_kwargs(env),
                train_seed=train_seed,
                step=step,
                audit=audit,
                save_actions=save_actions,
                isolated=isolated,
                command=["mtbench", *sys.argv[1:]],
                on_start=lambda rollout: _announce(rollout, by_default=split is None),
                on_rollout=show,
            )
        except KeyboardInterrupt as interruption:
            progress.stop()
            tell("Interrupted. Finished parts are kept; rerun the same command to resume.")
            raise typer.Exit(143 if isinstance(interruption, Terminated) else 130) from None
    path = shown_path(out)
    if not played:
        say(f"{path}: finished already ({run.manifest['started']}), nothing was played")
    else:
        attempts = sum(len(each.episodes) for each in run.conditions)
        say(f"{path}: {attempts} attempts, {time.monotonic() - began:.1f} s")


add_commands(app)
app.add_typer(leaderboard, name="leaderboard")


def _add_agent_commands() -> None:
    """``train`` and ``bench agent`` belong to the agents; PyTorch loads when they run."""
    from mtbench_agents.training.cli import train
    from mtbench_agents.transformer.cli import bench_agent

    app.command()(train)
    bench = typer.Typer(help="Time the reference agent.", no_args_is_help=True)
    bench.callback()(lambda: None)
    bench.command("agent")(bench_agent)
    app.add_typer(bench, name="bench")


def _takes_suites(command: Callable[..., None]) -> Callable[..., None]:
    """The same command with an option ``--suite``, the only way to import a suite from outside this package."""

    @functools.wraps(command)
    def importing(*args: Any, suite: list[str], **kwargs: Any) -> None:
        from mtbench.policy import load_module

        for module in suite:
            load_module(module, "suite")
        command(*args, **kwargs)

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("suite", inspect.Parameter.KEYWORD_ONLY, default=[], annotation=SuiteModules)
    vars(importing)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), option])
    importing.__annotations__ = {**importing.__annotations__, "suite": SuiteModules}
    return importing


def command_line() -> typer.Typer:
    """The whole command line."""
    if not any(group.name == "bench" for group in app.registered_groups):
        _add_agent_commands()
        for commands in (app, *(group.typer_instance for group in app.registered_groups)):
            assert commands is not None
            for each in commands.registered_commands:
                assert each.callback is not None
                each.callback = _takes_suites(each.callback)
    return app


def main() -> NoReturn:
    """Run the command line; errors that explain themselves come without a traceback."""
    run = command_line()
    warnings.formatwarning = _as_line
    try:
        try:
            run()
        finally:
            sys.stdout.flush()  # here, where a full disk or a closed pipe can still be answered
    except (UsageError, UnknownArgumentError, gym.error.DependencyNotInstalled, gym.error.InvalidAction) as error:
        tell_error(str(error))
        sys.exit(2)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has what it wanted.
        _drop_output()
    except OSError as error:
        if error.strerror is None:
            raise
        _drop_output()
        tell_error(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        sys.exit(2)
    sys.exit(0)


# ---- helpers ----


def _as_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as a user reads it: without the line of code that it came from, which is for developers."""
    name = "warning" if category is UserWarning else category.__name__
    return f"{name}: {' '.join(str(message).split())}\n"


def _drop_output() -> None:
    """Send what is still to be written to nobody, so that Python's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
            raise unknown_name_error("environment argument", key, ENV_KWARGS, "--env")
    return kwargs


def _announce(rollout: MetaRollout, by_default: bool) -> None:
    """Say before an evaluation which split it plays by default, and which scores its tasks cannot have."""
    from mtbench.scoring.references import missing_references

    if by_default:
        tell("Evaluating the test split, as by default; --split train plays the train split.")
    for scale, tasks in missing_references(rollout.suite, rollout.tasks).items():
        named = ", ".join(tasks[:8]) + (f", ... ({len(tasks)})" if len(tasks) > 8 else "")
        tell(f"There will be no scores on the {scale} scale, for want of reference scores, for: {named}.")


def _with_progress(played: Playthrough, rollout: MetaRollout, every: int) -> Iterator[Frame]:
    """The frames of a film, with a bar that counts steps; how many there will be is known at the end alone."""
    from mtbench.films import film

    with progress_bar("steps at most") as progress:
        bar = progress.add_task("filming", total=None)
        for frame in film(played, every):
            longest = rollout.k * (rollout.suite.tasks[rollout.task].max_steps + 1) - 1
            progress.update(bar, completed=played.steps, total=min(longest, rollout.max_steps or longest))
            yield frame


def _write_contact_sheet(rollout: MetaRollout, path: Path) -> None:
    from mtbench.pictures import contact_sheet, write_image
    from mtbench.play import contact_sheet_frames

    if path.suffix != ".png":
        raise unknown_name_error("figure format", path.suffix, [".png"], "mtbench info")
    frames = contact_sheet_frames(rollout)
    columns = min(len(frames), 4 if len(frames) <= 4 else 3 if len(frames) <= 30 else 8)
    write_image(contact_sheet(frames, columns=columns, width=320 if columns < 8 else 240), path)
