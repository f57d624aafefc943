"""``mtbench bench agent``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ..training.settings import updated
from .config import PRESETS, preset
from .entry import require_torch


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
    require_torch()
    config = preset(preset_name, env_id)
    changes: dict[str, Any] = {}
    for key, value in (
        ("learning.batch_size", batch_size),
        ("model.context", context),
        ("collect.num_envs", envs),
    ):
        if value is not None:
            changes[key] = value
    if batch_size is not None:
        changes["learning.batch_timesteps"] = None
    from .bench import measure

    numbers = measure(updated(config, changes), updates)
    for key, number in numbers.items():
        typer.echo(f"{key:24} {number:.4g}" if isinstance(number, float) else f"{key:24} {number}")
    if as_json:
        typer.echo(json.dumps({key: None if number != number else number for key, number in numbers.items()}))
