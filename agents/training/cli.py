"""``mtbench train``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mtbench import registration
from mtbench.checks import registered_environment
from mtbench.cli_options import Address
from mtbench.options import parsed_options

from .agents import AGENTS, DEFAULT, Trains, entry
from .stopping import stopping_by_signal

if TYPE_CHECKING:
    from rich.progress import Progress

_err = Console(stderr=True, highlight=False)


def train(
    env_id: Annotated[str, typer.Argument(metavar="ID", help="A Gymnasium ID from `mtbench list`.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as model.width=128 or seed=1.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run's folder.")] = None,
    agent: Annotated[str, typer.Option("--agent", help=f"One of {', '.join(AGENTS)}.")] = DEFAULT,
    preset_name: Annotated[
        str, typer.Option("--preset", help="small, debug; of the transformer also paper, quick.")
    ] = "small",
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
    """Train the reference agent, or the baseline; rerun the same command to resume."""
    import gymnasium as gym

    name = registration.find(env_id).id
    changes: dict[str, Any] = {"env_id": name, **parsed_options(settings or [])}
    changes |= {f"env.{key}": value for key, value in parsed_options(env or []).items()}
    # Options that are settings with a name of their own. An agent that has no such setting refuses them.
    choices = {
        "learning.actor": actor,
        "learning.critic": critic,
        "collectors": collectors,
        "loggers": tuple(log) if log else None,
        "sync": True if sync else None,
    }
    changes |= {key: value for key, value in choices.items() if value is not None}
    chosen = entry(agent)
    config = chosen.configured(preset_name, config_file, name, changes)
    registered_environment(name, config.env)  # a config.json is untrusted: known arguments only
    gym.make(name, **config.env).close()  # a wrong environment argument is refused before PyTorch is loaded
    prefix = name if agent == DEFAULT else f"{name}-{agent}"
    folder = out or Path("runs") / f"{prefix}-{preset_name}-seed{config.seed}"
    with chosen.training(config, folder, address) as trainer:
        _run(trainer, config, folder)


def _run(trainer: Trains, config: Any, folder: Path) -> None:
    """Train with a progress bar, that of the first process."""
    tell = _tell if trainer.first else lambda _: None
    tell(f"{config.env_id}: {trainer.about}, run in {folder}")
    with _progress(_err, trainer.unit, disable=not (trainer.first and _err.is_terminal)) as progress:
        bar = progress.add_task("", total=trainer.total, completed=trainer.done, numbers="")

        def show(numbers: dict[str, Any]) -> None:
            progress.update(bar, completed=trainer.done, numbers=_shown(numbers))

        with stopping_by_signal(trainer.stop) as stopping:
            complete = trainer.run(show)
    if not complete:
        tell(f"Stopped after {trainer.done} {trainer.unit} and saved. The same command goes on from there.")
        raise typer.Exit(128 + stopping.signal)
    tell(f"Done. Score it: {_scoring(config, folder)}")


def _progress(console: Console, unit: str, disable: bool) -> Progress:
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
        TextColumn(f"{unit} {{task.fields[numbers]}}"),
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


def _scoring(config: Any, folder: Path) -> str:
    """The command that evaluates the agent on the tasks that it was trained on; on the test split if that has them."""
    env = {key: value for key, value in config.env.items() if key != "split"}
    test = registered_environment(config.env_id, config.env)[1].split("test")
    held_out = not set(env.get("tasks", ())) <= {*test.tasks, *test.extra_tasks}
    words = ["mtbench", "evaluate", config.env_id, "--policy", str(folder), "--out", str(folder / "final")]
    words += [word for key, value in env.items() for word in ("--env", f"{key}={json.dumps(value)}")]
    return shlex.join([*words, *(["--split", "train"] if held_out else [])])
