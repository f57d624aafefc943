"""The baseline as ``mtbench train`` and ``mtbench evaluate`` know it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbench.errors import UsageError, missing_extra_error
from mtbench.policy import Policy

from ..training.settings import updated
from . import config as settings

if TYPE_CHECKING:
    from .train import Trainer

PRESETS = tuple(settings.PRESETS)


def configured(preset: str, file: Path | None, env_id: str, changes: Mapping[str, Any]) -> settings.PPOConfig:
    """The settings of a run.

    Args:
        preset: One of :data:`PRESETS`, to start from.
        file: A ``config.json`` to start from instead.
        env_id: The environment. The settings do not depend on its suite.
        changes: By name.

    Raises:
        UsageError: A setting or the preset does not exist, or a value is out of bounds.
        gymnasium.error.DependencyNotInstalled: sb3-contrib is missing.
    """
    _require_sb3()
    start = settings.preset(preset) if file is None else settings.read_config(file)
    config: settings.PPOConfig = updated(start, changes)
    return config


@contextmanager
def training(config: settings.PPOConfig, folder: Path, address: str | None) -> Iterator[Trainer]:
    """The run.

    Raises:
        UsageError: An address was given: it has no use for a Ray cluster.
    """
    if address is not None:
        raise UsageError("recurrent-ppo collects in its own process: leave out --address.")
    from .train import Trainer

    yield Trainer(config, folder)


def load_run(folder: Path) -> Policy:
    """The policy of a training run; see :func:`.policy.load_run`."""
    _require_sb3()
    from .policy import load_run

    return load_run(folder)


def _require_sb3() -> None:
    if importlib.util.find_spec("sb3_contrib") is None:
        raise missing_extra_error("sb3-contrib", "sb3", "recurrent-ppo")
