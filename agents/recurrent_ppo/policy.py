"""The network, and a trained one as a policy that evaluation can drive."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecTransposeImage
from torch import nn

from mtbench.adapters import SB3Policy
from mtbench.clients.sb3 import DictExtractor
from mtbench.errors import UsageError

from ..training.loading import Spaces, agent_name, check_state, newest_state, settings_of, spaces_of
from .config import PPOConfig, read_config
from .inputs import PreviousInputs


class Network(RecurrentActorCriticPolicy):
    """SB3's, but for how fast it learns: its memories go through whole sequences at once."""

    @staticmethod
    def _process_sequence(
        features: torch.Tensor,
        lstm_states: tuple[torch.Tensor, torch.Tensor],
        episode_starts: torch.Tensor,
        lstm: nn.LSTM,
    ) -> tuple[torch.Tensor, Any]:
        """Features of shape (sequences * timesteps, size), in this order, to outputs of such a shape.

        SB3 cuts its data where a rollout begins, so a memory is forgotten before the first timestep or not at all. It
        takes a loop over timesteps for this all the same, which is many times slower.
        """
        sequences = lstm_states[0].shape[1]
        by_time = features.reshape(sequences, -1, lstm.input_size).swapaxes(0, 1)
        kept = 1.0 - episode_starts.reshape(sequences, -1)[:, 0].view(1, sequences, 1)
        output, lstm_states = lstm(by_time, (kept * lstm_states[0], kept * lstm_states[1]))
        return output.swapaxes(0, 1).flatten(end_dim=1), lstm_states


class RecurrentPPOPolicy:
    """Samples from the network, and hands it the previous action and reward beside each observation.

    Args:
        network: SB3's; it is not copied.
        agent: The name in records.
        train_seed: Seed of its training run.
        step: Environment steps it was trained for.
        digest: Of the checkpoint it was loaded from, if it was.
    """

    def __init__(
        self, network: RecurrentActorCriticPolicy, agent: str, train_seed: int, step: int, digest: str | None = None
    ) -> None:
        self._network = SB3Policy(network, deterministic=False)
        self.agent: Final = agent
        self.train_seed: Final = train_seed
        self.step: Final = step
        self.digest: Final = digest

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Forget everything; see :class:`mtbench.policy.Policy`.

        Raises:
            UsageError: The network learned on other spaces.
        """
        self._inputs = PreviousInputs(observation_space, action_space)
        self._inputs.start(num_envs)
        self._network.start(num_envs, seed, self._inputs.space, action_space)

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        """One action per environment."""
        self._inputs.restart(reset_mask)
        actions = self._network.act(self._inputs.joined(observations), reset_mask)
        self._inputs.took(actions)
        return actions

    def observe_rewards(self, rewards: npt.NDArray[np.float64]) -> None:
        """The rewards that followed; see :class:`mtbench.policy.RewardedPolicy`."""
        self._inputs.received(rewards)


def network_kwargs(config: PPOConfig, observation: gym.Space[Any]) -> dict[str, Any]:
    """The ``policy_kwargs`` of SB3's algorithm.

    Args:
        config: Sizes.
        observation: The space of one observation with its inputs.
    """
    kwargs: dict[str, Any] = {"lstm_hidden_size": config.lstm, "net_arch": list(config.head)}
    if isinstance(observation, spaces.Dict):
        kwargs["features_extractor_class"] = DictExtractor
    return kwargs


def network(config: PPOConfig, observation: gym.Space[Any], action: gym.Space[Any]) -> Network:
    """A network with weights that nobody trained.

    Args:
        config: Sizes.
        observation: The space of one observation, without inputs.
        action: The space of one action.
    """
    space = PreviousInputs(observation, action).space
    kwargs = network_kwargs(config, space)
    # Weights are loaded next: SB3's orthogonal initialization would draw and compute in vain.
    return Network(_channels_first(space), action, lambda _: 0.0, ortho_init=False, **kwargs)


@torch.no_grad()
def remember(network: nn.Module, steps: int) -> None:
    """Let an untrained memory keep things for up to so many steps: chrono initialization.

    A gate that begins at one half forgets half of everything in each step, and what was seen dozens of steps ago has no
    gradient to learn to keep it (Tallec & Ollivier, "Can recurrent neural networks warp time?", ICLR 2018).

    Args:
        network: Its LSTMs are changed.
        steps: At most; each cell draws its own number from PyTorch's generator.
    """
    for module in network.modules():
        if not isinstance(module, nn.LSTM):
            continue
        size, bias = module.hidden_size, dict(module.named_parameters())
        forget = torch.log(1 + torch.rand(size, device=bias["bias_ih_l0"].device) * max(steps - 2, 0))
        for one in (bias["bias_ih_l0"], bias["bias_hh_l0"]):
            one[: 2 * size] = 0.0
        bias["bias_ih_l0"][:size], bias["bias_ih_l0"][size : 2 * size] = -forget, forget


def _channels_first(space: gym.Space[Any]) -> gym.Space[Any]:
    """What an algorithm makes of an observation space: images with their channels in front."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: _channels_first(part) for name, part in space.spaces.items()})
    if isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
        return VecTransposeImage.transpose_space(space)
    return space


def load_run(folder: Path, spaces: Spaces | None = None) -> RecurrentPPOPolicy:
    """The newest checkpoint of a training run as a policy. The run is untrusted: nothing in its folder is executed.

    Args:
        folder: Of the training run.
        spaces: Observation and action space of one environment; None makes the run's environment to ask it, which must
            be one of mtbench's.

    Raises:
        UsageError: The run's settings or checkpoint cannot be read, are out of bounds or do not fit each other.
    """
    config = settings_of(folder, read_config)
    if spaces is None:
        spaces = spaces_of(folder, config)
    path, state = newest_state(folder)
    _check_size(path, config)
    made = network(config, *spaces)
    check_state(path, state, "model", spaces, made.state_dict())
    made.load_state_dict(state["model"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return RecurrentPPOPolicy(made.to(device), agent_name(folder), config.seed, state["steps"], state["digest"])


def _check_size(path: Path, config: PPOConfig) -> None:
    """Check that the checkpoint is as large as its weights, so that settings alone cannot ask for memory."""
    recurrent = 2 * 4 * config.lstm * config.lstm
    least = 4 * (recurrent + 2 * sum(a * b for a, b in pairwise((config.lstm, *config.head))))
    if least > (path / "state.pt").stat().st_size:
        raise UsageError(f"{path} does not hold the {least:,} bytes of weights that its settings ask for.")
