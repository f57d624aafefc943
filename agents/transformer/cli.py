"""``mtbench train`` and ``mtbench bench agent``."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mtbench import registration
from mtbench.checks import registered_environment
from mtbench.cli_options import Address
from mtbench.errors import missing_extra_error
from mtbench.options import parsed_options

from .config import PRESETS, TrainConfig, Update, preset, read_config, updated

if TYPE_CHECKING:
    from rich.progress import Progress

    from .distributed import Ranks
    from .train import Trainer

_err = Console(stderr=True, highlight=False)


def train(
    env_id: Annotated[str, typer.Argument(metavar="ID", help="A Gymnasium ID from `mtbench list`.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as model.width=128 or seed=1.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run's folder.")] = None,
    preset_name: Annotated[str, typer.Option("--preset", help=f"One of {', '.join(PRESETS)}.")] = "small",
    config_file: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="A config.json to start from, of a run say.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="independent or dependent.")] = None,
    critic: Annotated[str | None, typer.Option(help="independent or dependent.")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", metavar="KEY=VALUE", help="Of the environment.")] = None,
    log: Annotated[
        list[str] | None, typer.Option("--log", metavar="NAME", help="Besides log.jsonl: tensorboard or wandb.")
    ] = None,
    collectors: Annotated[
        str | None, typer.Option("--collectors", help="local, or ray:N for N collectors on a Ray cluster (extra ray).")
    ] = None,
    address: Address = None,
    sync: Annotated[bool, typer.Option("--sync", help="Exactly repeatable: collect and learn in turns.")] = False,
) -> None:
    """Train the reference agent; rerun the same command to resume."""
    import gymnasium as gym

    _require_torch()

    name = registration.find(env_id).id
    changes: dict[str, Any] = {"env_id": name, **parsed_options(settings or [])}
    changes |= {f"env.{key}": value for key, value in parsed_options(env or []).items()}
    choices: dict[str, Update | str | None] = {
        "learning.actor": actor,
        "learning.critic": critic,
        "collectors": collectors,
    }
    changes |= {key: value for key, value in choices.items() if value is not None}
    if sync:
        changes["sync"] = True
    if log:
        changes["loggers"] = tuple(log)
    config = updated(preset(preset_name, name) if config_file is None else read_config(config_file), changes)
    registered_environment(name, config.env)  # a config.json is untrusted: known arguments only
    gym.make(name, **config.env).close()  # a wrong environment argument is refused before PyTorch is loaded
    folder = out or Path("runs") / f"{name}-{preset_name}-seed{config.seed}"

    from .distributed import joined

    with joined() as ranks:
        _run(config, folder, ranks, address)


def _run(config: TrainConfig, folder: Path, ranks: Ranks, address: str | None) -> None:
    """Train with a progress bar, that of rank 0."""
    from .train import Trainer

    trainer = Trainer(config, folder, ranks, address)
    devices = f"{ranks.count} ranks, each on {trainer.device}" if ranks.count > 1 else str(trainer.device)
    tell = _tell if ranks.rank == 0 else lambda _: None
    tell(f"{config.env_id}: {trainer.parameters:,} parameters on {devices}, run in {folder}")
    with _progress(_err, disable=ranks.rank > 0 or not _err.is_terminal) as progress:
        bar = progress.add_task("", total=config.updates, completed=trainer.learner.updates, numbers="")

        def show(numbers: dict[str, Any]) -> None:
            progress.update(bar, completed=numbers["updates"], numbers=_shown(numbers))

        with _stopping(trainer) as stopping:
            complete = trainer.run(show)
    if not complete:
        tell(f"Stopped after {trainer.learner.updates} updates and saved. The same command goes on from there.")
        raise typer.Exit(128 + stopping.signal)
    tell(f"Done. Score it: {_scoring(config, folder)}")


def _progress(console: Console, disable: bool) -> Progress:
    """The bar of a training run. Narrow terminals shrink the bar, not the numbers."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    columns = (
        BarColumn(),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("updates {task.fields[numbers]}"),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )
    return Progress(*columns, console=console, disable=disable)


def _tell(message: str) -> None:
    _err.print(message, markup=False, soft_wrap=True)


def _shown(numbers: dict[str, Any]) -> str:
    """What the bar says of a round: short enough for 80 columns."""
    returns = " ".join(f"{value:.2f}" for value in numbers["returns"])
    return f"{numbers['updates_per_second']:.1f}/s" + (f"  return {returns}" if returns else "")


def _scoring(config: TrainConfig, folder: Path) -> str:
    """The command that evaluates the agent on the tasks that it was trained on; on the test split if that has them."""
    env = {key: value for key, value in config.env.items() if key != "split"}
    test = registered_environment(config.env_id, config.env)[1].split("test")
    held_out = not set(env.get("tasks", ())) <= {*test.tasks, *test.extra_tasks}
    words = ["mtbench", "evaluate", config.env_id, "--policy", str(folder), "--out", str(folder / "final")]
    words += [word for key, value in env.items() for word in ("--env", f"{key}={json.dumps(value)}")]
    return shlex.join([*words, *(["--split", "train"] if held_out else [])])


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise missing_extra_error("torch", "agents", "The reference agent")


class _stopping:
    """Let the first Ctrl-C (or SIGTERM) end a run cleanly; the second one ends it at once.

    Attributes:
        signal: The number of the signal received.
    """

    signal: int = signal.SIGINT

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __enter__(self) -> _stopping:
        self._before = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._trainer.stop.set()
        for each, handler in self._before.items():
            signal.signal(each, handler)
        with contextlib.suppress(OSError):  # the reader has closed the pipe
            _err.print("Stopping: saving a checkpoint. (Again: at once, without.)")


def bench_agent(
    env_id: Annotated[str, typer.Argument(metavar="ID", help="A Gymnasium ID.")] = "MTPOPGym-v0",
    preset_name: Annotated[str, typer.Option("--preset", help=f"One of {', '.join(PRESETS)}.")] = "paper",
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, metavar="B")] = None,
    context: Annotated[int | None, typer.Option("--context", min=1, metavar="L")] = None,
    envs: Annotated[int | None, typer.Option("--envs", min=1, help="Environments in a batched action.")] = None,
    updates: Annotated[int, typer.Option("--updates", min=0, help="Timed updates; 0: actions alone.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on a line.")] = False,
) -> None:
    """Time an update and a batched action of the reference agent on this device."""
    _require_torch()
    config = preset(preset_name, env_id)
    changes: dict[str, Any] = {}
    for key, value in (
        ("learning.batch_size", batch_size),
        ("model.context", context),
        ("collect.num_envs", envs),
    ):
        if value is not None:
            changes[key] = value
    from .bench import measure

    numbers = measure(updated(config, changes), updates)
    for key, number in numbers.items():
        typer.echo(f"{key:24} {number:.4g}" if isinstance(number, float) else f"{key:24} {number}")
    if as_json:
        typer.echo(json.dumps({key: None if number != number else number for key, number in numbers.items()}))
