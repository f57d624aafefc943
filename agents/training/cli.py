"""``mtbench train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mtbench import registration
from mtbench.checks import registered_environment
from mtbench.cli_options import Address
from mtbench.options import parsed_options

from .agents import AGENTS, DEFAULT, Trains, entry
from .stopping import stopping_by_signal

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
        _run(trainer, name, folder)


def _run(trainer: Trains, env_id: str, folder: Path) -> None:
    """Train with a progress bar, that of the first process."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    tell = _err.print if trainer.first else lambda *_, **__: None
    tell(f"{env_id}: {trainer.about}, run in {folder}", markup=False)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(f"{trainer.unit} {{task.fields[numbers]}}"))
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=_err, disable=not trainer.first) as progress:
        bar = progress.add_task("", total=trainer.total, completed=trainer.done, numbers="")

        def show(numbers: dict[str, Any]) -> None:
            shown = (
                f"return {numbers['returns']}  {numbers['updates_per_second']:.1f} updates/s  "
                f"{numbers['steps_per_second']:.0f} steps/s"
            )
            progress.update(bar, completed=trainer.done, numbers=shown)

        with stopping_by_signal(trainer.stop) as stopping:
            complete = trainer.run(show)
    if not complete:
        tell(f"Stopped after {trainer.done:,} {trainer.unit} and saved. The same command goes on from there.")
        raise typer.Exit(128 + stopping.signal)
    tell(f"Done. Score it: mtbench evaluate {env_id} --policy {folder} --out {folder}/final", markup=False)
