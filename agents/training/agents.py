"""The agents that ``mtbench train`` trains: each is a module like :class:`Entry`, named in :data:`AGENTS`."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from mtbench.errors import unknown_name_error
from mtbench.policy import Policy

from .settings import read_settings

#: By the name that ``--agent`` takes and a run's ``config.json`` has as ``agent``.
AGENTS = {
    "transformer": "mtbench_agents.transformer.entry",
    "recurrent-ppo": "mtbench_agents.recurrent_ppo.entry",
}
#: A ``config.json`` without a name is of this one.
DEFAULT = "transformer"


class Trains(Protocol):
    """A training run under way, as the command line shows it."""

    #: Set it, and the run saves a checkpoint and ends.
    stop: threading.Event

    @property
    def about(self) -> str:
        """The model and where it runs, in words."""

    @property
    def first(self) -> bool:
        """Whether this process is the one that speaks: rank 0, where there are several."""

    @property
    def unit(self) -> str:
        """What the run is counted in, such as ``"updates"``."""

    @property
    def total(self) -> int:
        """How many of them it is to have."""

    @property
    def done(self) -> int:
        """How many it has."""

    def run(self, on_round: Callable[[dict[str, Any]], None] | None = None) -> bool:
        """Train until it is complete or stopped; whether it is complete. `on_round` gets the numbers of each round."""


class Entry(Protocol):
    """What an agent's entry module has."""

    #: Names of its presets.
    PRESETS: tuple[str, ...]

    def configured(self, preset: str, file: Path | None, env_id: str, changes: Mapping[str, Any]) -> Any:
        """The settings, checked without importing PyTorch: a preset's, or those in a file, with changes by name."""

    def training(self, config: Any, folder: Path, address: str | None) -> AbstractContextManager[Trains]:
        """The run in a folder. The address is that of a Ray cluster, for agents that use one."""

    def load_run(self, folder: Path) -> Policy:
        """The policy of a training run. The folder is untrusted: nothing in it is executed."""


def entry(name: str) -> Entry:
    """The entry of an agent by name.

    Raises:
        UsageError: There is no such agent.
    """
    if name not in AGENTS:
        raise unknown_name_error("agent", name, list(AGENTS), "mtbench train")
    module: Any = importlib.import_module(AGENTS[name])
    return module  # type: ignore[no-any-return]


def load_run(folder: Path) -> Policy:
    """The newest checkpoint of a training run, of any agent, as a policy. The folder is untrusted.

    Raises:
        UsageError: The run's settings or checkpoint cannot be read, are out of bounds or do not fit each other.
    """
    return entry(read_settings(folder / "config.json", _agent)).load_run(folder)


def _agent(content: Mapping[str, Any]) -> str:
    return str(content.get("agent", DEFAULT))
