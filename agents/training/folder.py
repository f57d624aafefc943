"""Prepare a training run's folder: check or write its settings, and remove what killed runs left."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtbench.errors import UsageError
from mtbench.evaluation import is_run
from mtbench.files import sweep, write_json

from . import checkpoint
from .settings import to_dict

# Settings that may change when a run is resumed, in every agent that has them.
_FREE = ("updates", "steps", "threads", "keep_checkpoints", "loggers", "collectors")


def claim(folder: Path, config: Any, read_config: Callable[[Path], Any]) -> None:
    """Write the settings into the folder, or check them against those of the run that it has.

    Where nothing was logged or saved, there is no run: it was refused for want of disk, say.

    Args:
        folder: Of the run.
        config: Its settings.
        read_config: Reads the agent's settings from an untrusted file.

    Raises:
        UsageError: The folder holds a run with other settings, or one whose settings cannot be read.
    """
    path = folder / "config.json"
    if path.exists() and ((folder / "log.jsonl").exists() or any(folder.glob("checkpoints/*"))):
        try:
            known, wanted = to_dict(read_config(path)), to_dict(config)
        except UsageError as error:
            raise UsageError(
                f"{error} If this command has the run's settings, delete that file and try again."
            ) from None
        for name in wanted:
            if name not in _FREE and known[name] != wanted[name]:
                raise UsageError(
                    f"{folder} holds a run with other settings: {name} is {known[name]!r}, not {wanted[name]!r}. "
                    "Give another folder with --out, or delete this one."
                )
    elif is_run(folder):
        raise UsageError(f"{folder} holds an evaluation: give another folder with --out.")
    write_json(path, to_dict(config))


def tidy(folder: Path, config: Any, read_config: Callable[[Path], Any]) -> None:
    """Remove temporary files of killed runs; repair ``best/``, or drop its agent if that is damaged.

    Arguments are those of :func:`claim`.
    """
    best = folder / "best"
    sweep(folder, ("config.json", "log.jsonl", "wandb-id"))
    replays = folder / "replay", *folder.glob("replay/rank-*")
    for inside in (folder / "checkpoints", *replays, best, best / "checkpoints"):
        sweep(inside)
    if not best.exists():
        return
    try:
        checkpoint.newest(best / "checkpoints", with_replay=False)
    except UsageError:
        warnings.warn(f"The agent in {best} is damaged: dropped until an evaluation keeps another.", stacklevel=2)
        shutil.rmtree(best / "checkpoints")
    try:
        read_config(best / "config.json")
    except UsageError:
        write_json(best / "config.json", to_dict(config))


def drop_evaluations(folder: Path, updates: int) -> None:
    """Remove evaluations of later updates than the checkpoint that a run goes on from: it makes them anew."""
    for evaluated in (folder / "evaluations").glob("update-*"):
        number = evaluated.name.removeprefix("update-")
        if number.isdecimal() and int(number) > updates:
            shutil.rmtree(evaluated)
