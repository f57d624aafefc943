"""A trained agent as a policy that evaluation can drive: ``mtbench evaluate --policy runs/X``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from mtbench.errors import UsageError

from ..training.loading import Spaces, agent_name, check_spaces, check_state, newest_state, settings_of, spaces_of
from .acting import ActingModel, Player, ValuingModel
from .config import read_config
from .model import AgentModel

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
        self.agent: Final = agent
        self.train_seed: Final = train_seed
        self.step: Final = step

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Empty memories and a new generator; see :class:`mtbench.policy.Policy`.

        Raises:
            UsageError: The agent was trained on spaces of other sizes.
        """
        if self._spaces is not None:
            check_spaces(self.agent, self._spaces, (observation_space, action_space))
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
    config = settings_of(folder, read_config)
    cache = 2 * config.model.layers * config.model.context * config.model.width * 4
    if cache > _MAX_CACHE:
        raise UsageError(
            f"{folder}: `model.layers`, `model.context` and `model.width` ask for a memory of {cache:,} bytes in each "
            f"environment, at most {_MAX_CACHE:,} are allowed."
        )
    if spaces is None:
        spaces = spaces_of(folder, config)
    path, state = newest_state(folder)
    acting = "model" if config.learning.ema_rate == 1 else "acting"
    # Built without allocating its weights, so that settings alone cannot ask for memory.
    with torch.device("meta"):
        wanted = AgentModel(config.model, config.learning, *spaces).state_dict()
    check_state(path, state, acting, spaces, wanted)
    model = AgentModel.seeded(config.seed, config.model, config.learning, *spaces)
    model.load_state_dict(state[acting])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    multiplier = config.learning.reward_multiplier
    return TransformerPolicy(
        model, device, agent_name(folder), config.seed, state["steps"], state["digest"], multiplier, spaces
    )
