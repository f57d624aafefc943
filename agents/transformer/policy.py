"""A trained agent as a policy that evaluation can drive: ``mtbench evaluate --policy runs/X``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from mtbench.errors import UsageError

from . import checkpoint
from .acting import Player
from .config import read_config
from .model import AgentModel


class TransformerPolicy:
    """Samples from the policy of the last discount, as evaluation does in the paper's release.

    Args:
        model: A trained network; it is put into evaluation mode whenever it acts.
        device: Where it acts.
        agent: Its name in records.
        train_seed: Seed of its training run.
        step: Environment steps it was trained for.
        digest: What identifies the checkpoint it was loaded from.
    """

    def __init__(
        self,
        model: AgentModel,
        device: torch.device,
        agent: str,
        train_seed: int,
        step: int,
        digest: str | None = None,
    ) -> None:
        self._model, self._device = model.to(device), device
        self.agent, self.train_seed, self.step, self.digest = agent, train_seed, step, digest

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Empty memories and a new generator; see :class:`mtbench.policy.Policy`."""
        self._player = Player(num_envs, action_space, np.random.default_rng(seed), self._device)

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        """One action per environment."""
        self._model.eval()
        self._player.restart(reset_mask)
        actions = self._player.act(self._model, observations)
        self._player.took(actions)
        return self._player.to_environment(actions)

    def observe_rewards(self, rewards: npt.NDArray[np.float64]) -> None:
        """The rewards that followed; see :class:`mtbench.policy.RewardedPolicy`."""
        self._player.received(rewards.astype(np.float32))


def load_run(folder: Path) -> TransformerPolicy:
    """The newest checkpoint of a run as a policy.

    Raises:
        UsageError: There is no readable checkpoint.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is no training run: it has no config.json.")
    config = read_config(folder / "config.json")
    found = checkpoint.newest(folder / "checkpoints", with_replay=False)
    if found is None:
        raise UsageError(f"{folder} has no checkpoint yet.")
    _, state, _ = found
    env = gym.make(config.env_id, **config.env)
    spaces = env.observation_space, env.action_space
    model = AgentModel.seeded(config.seed, config.model, config.learning, *spaces)
    env.close()
    model.load_state_dict(state["model"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parent, name = folder.resolve().parts[-2:]
    agent = f"{parent}-best" if name == "best" else name
    return TransformerPolicy(model, device, agent, config.seed, int(state["steps"]), state["digest"])
