"""Read a training run that comes from a stranger: nothing in its folder is executed, and sizes are checked first."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
from torch import Tensor

from mtbench.catalogue import short_space
from mtbench.checks import registered_environment
from mtbench.errors import UsageError
from mtbench.untrusted import shown

from . import checkpoint

T = TypeVar("T")
Spaces = tuple[gym.Space[Any], gym.Space[Any]]


def settings_of(folder: Path, read_config: Callable[[Path], T]) -> T:
    """The settings of a run.

    Raises:
        UsageError: There are none, or they cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is no training run: it has no config.json.")
    return read_config(folder / "config.json")


def spaces_of(folder: Path, config: Any) -> Spaces:
    """The spaces of the run's environment, which is made only if it is registered and its arguments are known."""
    try:
        row, _ = registered_environment(config.env_id, config.env)
    except UsageError as error:
        raise UsageError(f"{folder / 'config.json'}: {error}") from None
    env = gym.make(row.id, **config.env)
    spaces = env.observation_space, env.action_space
    env.close()
    return spaces


def agent_name(folder: Path) -> str:
    """The agent's name in records: the folder's, or that of the run whose best it is."""
    parent, name = folder.resolve().parts[-2:]
    return f"{parent}-best" if name == "best" else name


def newest_state(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run, without its replay.

    Raises:
        UsageError: There is none, or it cannot be trusted.
    """
    _check_files(folder / "checkpoints")
    found = checkpoint.newest(folder / "checkpoints", with_replay=False)
    if found is None:
        raise UsageError(f"{folder} has no checkpoint yet.")
    return found[0], found[1]


def check_state(path: Path, state: Any, name: str, spaces: Spaces, wanted: Mapping[str, Tensor]) -> None:
    """Check that a checkpoint is complete, and that its weights have the sizes that the settings imply.

    Args:
        path: Of the checkpoint.
        state: What it holds.
        name: Of the weights in it that act.
        spaces: Of one environment.
        wanted: Weights such as the settings imply.

    Raises:
        UsageError: It does not fit; the message says where.
    """
    weights = state.get(name) if isinstance(state, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UsageError(f"{path} holds no model.")
    steps = state.get("steps")
    if type(steps) is not int or not 0 <= steps < 2**63:
        raise UsageError(f"{path} should say how many steps it was trained for, it says {shown(steps)}.")
    if state.get("spaces") != str(spaces):
        raise UsageError(f"{path} was trained on other spaces: {shown(state.get('spaces'))}, not {shown(str(spaces))}.")
    for key in sorted(wanted.keys() | weights.keys(), key=str):
        want, have = (tuple(tensors[key].shape) if key in tensors else None for tensors in (wanted, weights))
        if want != have:
            raise UsageError(
                f"{path} does not fit the settings in config.json: {shown(key)} should be {_described(want)}, it is "
                f"{_described(have)}."
            )
        if weights[key].dtype != wanted[key].dtype:
            raise UsageError(f"{path}: {shown(key)} should be {wanted[key].dtype}, it is {weights[key].dtype}.")
    size = sum(tensor.numel() * tensor.element_size() for tensor in wanted.values())
    if size > (path / "state.pt").stat().st_size:
        raise UsageError(f"{path} does not hold the {size:,} bytes of weights that it claims.")


def check_spaces(agent: str, trained: Spaces, given: Spaces) -> None:
    """Check that an agent can play in an environment.

    Args:
        agent: Its name.
        trained: Observation and action space that it was trained on.
        given: Those of the environment.

    Raises:
        UsageError: They have other sizes.
    """
    if [*map(_sizes, trained)] != [*map(_sizes, given)]:
        learnt, shown = (" and ".join(map(short_space, spaces)) for spaces in (trained, given))
        raise UsageError(
            f"The agent {agent} was trained on other spaces than this environment has: {learnt}, not {shown}."
        )


def _sizes(space: gym.Space[Any]) -> object:
    """What a space asks of a network: its kind and sizes, without the bounds of numbers."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _sizes(part) for key, part in space.spaces.items()}
    return (space.shape, space.dtype) if isinstance(space, gym.spaces.Box) else str(space)


def _described(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"of shape {shape}"


def _check_files(folder: Path) -> None:
    """Check that checkpoints are plain files which unpack to no more than they take on disk."""
    for path in sorted(folder.glob("update-*")):
        for file in (folder, path, *sorted(path.iterdir())):
            if file.is_symlink():
                raise UsageError(f"{file} is a symbolic link. Put the file itself there.")
        state = path / "state.pt"
        if not state.is_file():
            continue  # a damaged checkpoint: the one before it may serve
        try:
            with zipfile.ZipFile(state) as archive:
                entries = archive.infolist()
        except (OSError, zipfile.BadZipFile):
            continue  # checking its digest, or torch.load, will report it
        if sum(entry.file_size for entry in entries) > state.stat().st_size:
            raise UsageError(f"{state} unpacks to more than it takes on disk: it is no checkpoint of this agent.")
