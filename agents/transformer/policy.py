"""A trained agent as a policy that evaluation can drive: ``mtbench evaluate --policy runs/X``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from mtbench.catalogue import short_space
from mtbench.checks import registered_environment
from mtbench.errors import UsageError
from mtbench.untrusted import shown

from . import checkpoint
from .acting import ActingModel, Player, ValuingModel
from .config import TrainConfig, read_config
from .model import AgentModel

Spaces = tuple[gym.Space[Any], gym.Space[Any]]

_MAX_CACHE = 1 << 28  # bytes of keys and values for each environment


class TransformerPolicy:
    """Samples from the policy of the last discount, as evaluation does in the paper's release.

    Args:
        model: A trained network; its weights are copied.
        device: Where it acts.
        agent: The name in records.
        train_seed: Seed of its training run.
        step: Environment steps it was trained for.
        digest: Of the checkpoint it was loaded from, if it was.
        multiplier: Of rewards, when it was trained.
        spaces: Observation and action space it was trained on; None lets :meth:`start` take any.
    """

    def __init__(
        self,
        model: AgentModel,
        device: torch.device,
        agent: str,
        train_seed: int,
        step: int,
        digest: str | None = None,
        multiplier: float = 1.0,
        spaces: Spaces | None = None,
    ) -> None:
        self._model, self._device = model.to(device), device
        self._acting = ActingModel(self._model)
        self._multiplier, self._spaces = multiplier, spaces
        self._valuing: ValuingModel | None = None
        self.digest = digest
        self.agent, self.train_seed, self.step = agent, train_seed, step

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Empty memories and a new generator; see :class:`mtbench.policy.Policy`.

        Raises:
            UsageError: The agent was trained on spaces of other sizes.
        """
        here = observation_space, action_space
        if self._spaces is not None and [*map(_sizes, self._spaces)] != [*map(_sizes, here)]:
            trained, given = (" and ".join(map(short_space, spaces)) for spaces in (self._spaces, here))
            raise UsageError(
                f"The agent {self.agent} was trained on other spaces than this environment has: {trained}, not {given}."
            )
        self._player = Player(num_envs, action_space, np.random.default_rng(seed), self._device)

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        """One action per environment."""
        return self._act(self._acting, observations, reset_mask)

    def act_and_value(
        self, observations: Any, reset_mask: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Also the returns it expects; see :class:`mtbench.policy.ValuingPolicy`."""
        if self._valuing is None:
            self._valuing = ValuingModel(self._model, self._multiplier).to(self._device)
        actions = self._act(self._valuing, observations, reset_mask)
        return actions, self._valuing.values.cpu().numpy().astype(np.float64)

    def _act(self, model: ActingModel, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        self._player.restart(reset_mask)
        actions = self._player.act(model, observations)
        self._player.took(actions)
        return self._player.to_environment(actions)

    def observe_rewards(self, rewards: npt.NDArray[np.float64]) -> None:
        """The rewards that followed; see :class:`mtbench.policy.RewardedPolicy`."""
        self._player.received(rewards.astype(np.float32))


def load_run(folder: Path, spaces: Spaces | None = None) -> TransformerPolicy:
    """The newest checkpoint of a training run as a policy. The run is untrusted: nothing in its folder is executed.

    Args:
        folder: Of the training run.
        spaces: Observation and action space of one environment, for a run on an environment of the caller's own.
            None makes the run's environment to ask it, which must be one of mtbench's.

    Raises:
        UsageError: The run's settings or checkpoint cannot be read, are out of bounds or do not fit each other.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is no training run: it has no config.json.")
    config = read_config(folder / "config.json")
    cache = 2 * config.model.layers * config.model.context * config.model.width * 4
    if cache > _MAX_CACHE:
        raise UsageError(
            f"{folder}: `model.layers`, `model.context` and `model.width` ask for a memory of {cache:,} bytes in each "
            f"environment, at most {_MAX_CACHE:,} are allowed."
        )
    if spaces is None:
        spaces = _spaces(folder, config)
    _check_files(folder / "checkpoints")
    found = checkpoint.newest(folder / "checkpoints", with_replay=False)
    if found is None:
        raise UsageError(f"{folder} has no checkpoint yet.")
    path, state, _ = found
    _check_state(path, state, config, spaces)
    model = AgentModel.seeded(config.seed, config.model, config.learning, *spaces)
    model.load_state_dict(state[_acting_name(config)])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parent, name = folder.resolve().parts[-2:]
    agent = f"{parent}-best" if name == "best" else name
    multiplier = config.learning.reward_multiplier
    return TransformerPolicy(model, device, agent, config.seed, state["steps"], state["digest"], multiplier, spaces)


def _sizes(space: gym.Space[Any]) -> object:
    """What a space asks of a network: its kind and sizes, without the bounds of numbers."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _sizes(part) for key, part in space.spaces.items()}
    return (space.shape, space.dtype) if isinstance(space, gym.spaces.Box) else str(space)


def _spaces(folder: Path, config: TrainConfig) -> Spaces:
    """The spaces of the run's environment, which is made only if it is registered and its arguments are known."""
    try:
        row, _ = registered_environment(config.env_id, config.env)
    except UsageError as error:
        raise UsageError(f"{folder / 'config.json'}: {error}") from None
    env = gym.make(row.id, **config.env)
    spaces = env.observation_space, env.action_space
    env.close()
    return spaces


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


def _acting_name(config: TrainConfig) -> str:
    """The weights of a checkpoint that act."""
    return "model" if config.learning.ema_rate == 1 else "acting"


def _check_state(path: Path, state: Any, config: TrainConfig, spaces: Spaces) -> None:
    """Check that a checkpoint is complete, and that its weights have the sizes that the settings imply.

    The model is built without allocating its weights, so that settings alone cannot ask for memory.
    """
    weights = state.get(_acting_name(config)) if isinstance(state, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UsageError(f"{path} holds no model.")
    steps = state.get("steps")
    if type(steps) is not int or not 0 <= steps < 2**63:
        raise UsageError(f"{path} should say how many steps it was trained for, it says {shown(steps)}.")
    if state.get("spaces") != str(spaces):
        raise UsageError(f"{path} was trained on other spaces: {shown(state.get('spaces'))}, not {shown(str(spaces))}.")
    with torch.device("meta"):
        wanted = AgentModel(config.model, config.learning, *spaces).state_dict()
    for name in sorted(wanted.keys() | weights.keys(), key=str):
        want, have = (tuple(tensors[name].shape) if name in tensors else None for tensors in (wanted, weights))
        if want != have:
            raise UsageError(
                f"{path} does not fit the settings in config.json: {shown(name)} should be {_described(want)}, it is "
                f"{_described(have)}."
            )
        if weights[name].dtype != wanted[name].dtype:
            raise UsageError(f"{path}: {shown(name)} should be {wanted[name].dtype}, it is {weights[name].dtype}.")
    size = sum(tensor.numel() * tensor.element_size() for tensor in wanted.values())
    if size > (path / "state.pt").stat().st_size:
        raise UsageError(f"{path} does not hold the {size:,} bytes of weights that it claims.")


def _described(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"of shape {shape}"
