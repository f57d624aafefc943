"""The reference agent as ``mtbench train`` and ``mtbench evaluate`` know it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbench.errors import missing_extra_error
from mtbench.policy import Policy

from ..training.settings import updated
from . import config as settings

if TYPE_CHECKING:
    from .train import Trainer

PRESETS = tuple(settings.PRESETS)


def configured(preset: str, file: Path | None, env_id: str, changes: Mapping[str, Any]) -> settings.TrainConfig:
    """The settings of a run.

    Args:
        preset: One of :data:`PRESETS`, to start from.
        file: A ``config.json`` to start from instead.
        env_id: The environment.
        changes: By dotted name.

    Raises:
        UsageError: A setting or the preset does not exist, or a value is out of bounds.
        gymnasium.error.DependencyNotInstalled: PyTorch is missing.
    """
    require_torch()
    start = settings.preset(preset, env_id) if file is None else settings.read_config(file)
    config: settings.TrainConfig = updated(start, changes)
    return config


@contextmanager
def training(config: settings.TrainConfig, folder: Path, address: str | None) -> Iterator[Trainer]:
    """The run, alone or with the other ranks that ``torchrun`` began."""
    from .distributed import joined
    from .train import Trainer

    with joined() as ranks:
        yield Trainer(config, folder, ranks, address)


def load_run(folder: Path) -> Policy:
    """The policy of a training run; see :func:`.policy.load_run`."""
    from .policy import load_run

    return load_run(folder)


def require_torch() -> None:
    """Say which extra has PyTorch, if it is missing."""
    if importlib.util.find_spec("torch") is None:
        raise missing_extra_error("torch", "agents", "The reference agent")
