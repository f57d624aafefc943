"""A training run's log: one JSON object per line. TensorBoard and W&B are optional.

The JSON lines are the record, and the only log that is read back. The others get the same numbers; work that a resumed
run repeats appears in them twice.
"""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mtbench.errors import missing_extra_error, unknown_name_error
from mtbench.files import write_atomically

# Takes an environment step and flat numbers.
Logger = Callable[[int, dict[str, float]], None]


class RunLog:
    """``log.jsonl``.

    Args:
        path: The file; made when the first line is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, numbers: dict[str, Any]) -> None:
        """Append a line; ``numbers["updates"]`` says where in the run it belongs."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(numbers) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.filename is None:
                error.filename = str(self._path)
            raise

    def read(self) -> list[dict[str, Any]]:
        """All whole lines, with a warning if others are damaged; a kill may have left half of the last one."""
        if not self._path.exists():
            return []
        *whole, last = self._path.read_bytes().split(b"\n")
        lines = [line for line in map(_parsed, whole) if line is not None]
        if len(lines) < len(whole):
            warnings.warn(
                f"{self._path} has damaged lines, which are left out: {len(whole) - len(lines)}.", stacklevel=2
            )
        ending = _parsed(last)
        return lines if ending is None else [*lines, ending]

    def cut(self, updates: int) -> None:
        """Drop what lies beyond a checkpoint, and damaged lines: a resumed run writes the former again."""
        kept = [line for line in self.read() if line["updates"] <= updates]
        if self._path.exists():
            text = "".join(json.dumps(line) + "\n" for line in kept)
            write_atomically(self._path, lambda temporary: temporary.write_text(text))


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's numbers; None if it is not a line of this log."""
    try:
        numbers = json.loads(line)
    except ValueError:
        return None
    # Exactly int: JSON's true is one too.
    return numbers if isinstance(numbers, dict) and type(numbers.get("updates")) is int else None


def tensorboard(folder: Path, config: dict[str, Any]) -> Logger:
    """Event files in ``tensorboard/`` of the run's folder; the x-axis is environment steps."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))
    writer.add_text("config", f"```json\n{json.dumps(config, indent=1)}\n```", 0)

    def log(step: int, numbers: dict[str, float]) -> None:
        for name, number in numbers.items():
            writer.add_scalar(name, number, step)
        writer.flush()

    return log


def wandb(folder: Path, config: dict[str, Any]) -> Logger:
    """A run of Weights & Biases, set up by its own environment variables; a resumed run goes on in it."""
    import wandb as client

    identity = folder / "wandb-id"
    known = identity.read_text() if identity.exists() else None
    run = client.init(project="mtbench", name=folder.name, id=known, resume="allow", dir=str(folder), config=config)
    write_atomically(identity, lambda temporary: temporary.write_text(run.id))
    run.define_metric("*", step_metric="steps")

    def log(step: int, numbers: dict[str, float]) -> None:
        run.log({**numbers, "steps": step})

    return log


LOGGERS: dict[str, Callable[[Path, dict[str, Any]], Logger]] = {"tensorboard": tensorboard, "wandb": wandb}


def make_loggers(names: tuple[str, ...], folder: Path, config: dict[str, Any]) -> list[Logger]:
    """The opt-in logs of a run.

    Raises:
        UsageError: One of them does not exist, or its package is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise unknown_name_error("logger", name, list(LOGGERS), "this agent")
        if importlib.util.find_spec(name) is None:
            raise missing_extra_error(name, name, f"Logging to {name}")
    return [LOGGERS[name](folder, config) for name in names]


def flat(numbers: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Nested numbers as ``evaluation/RepeatFirstEasy`` or ``returns/1``."""
    for name, value in numbers.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, list):
            yield from flat({str(i + 1): v for i, v in enumerate(value)}, f"{prefix}{name}/")
        else:
            yield prefix + name, float(value)
