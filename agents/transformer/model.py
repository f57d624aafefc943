"""The whole network: timesteps to states, states to policies and values."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbench.errors import UsageError

from .backbone import Backbone
from .config import LearningConfig, ModelConfig
from .encoders import Timesteps, make_encoder
from .heads import Actor, CriticEnsemble
from .objectives import PopArt, ValueBins


class ActionSpec:
    """The kind and the size of an action space.

    Raises:
        UsageError: It is neither Discrete nor a bounded vector.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        if isinstance(space, gym.spaces.Discrete):
            self.discrete, self.size = True, int(space.n)
        elif isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and space.is_bounded():
            self.discrete, self.size = False, space.shape[0]
        else:
            raise UsageError(f"The reference agent needs Discrete or bounded vector actions, not {space}.")

    def as_input(self, action: Tensor) -> Tensor:
        """Actions as the encoder takes them: one-hot ``(..., A)`` float32, or as they are."""
        return F.one_hot(action, self.size).float() if self.discrete else action


class AgentModel(nn.Module):
    """Encoder, backbone, heads, and the targets of the heads (the sequence model has none).

    Args:
        model: Sizes.
        learning: Decides the discounts and what the critics put out.
        observation_space: Of one environment.
        action_space: Of one environment. Continuous actions are in (-1, 1) here; the collector rescales them.
    """

    def __init__(
        self,
        model: ModelConfig,
        learning: LearningConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
    ) -> None:
        super().__init__()
        self.actions = ActionSpec(action_space)
        self.independent_critic = learning.critic == "independent"
        discounts = learning.discounts
        self.encoder = make_encoder(observation_space, self.actions.size, model.encoder, model.width)
        self.backbone = Backbone(
            model.width, model.feedforward, model.layers, model.heads, model.context, model.dropout, model.recompute
        )
        outputs = model.bins if self.independent_critic else 1

        def heads() -> tuple[Actor, CriticEnsemble]:
            size, discrete = self.actions.size, self.actions.discrete
            actor = Actor(model.width, model.head, len(discounts), size, discrete, model.probability_floor)
            return actor, CriticEnsemble(model.width, model.head, discounts, size, discrete, outputs, model.critics)

        self.actor, self.critic = heads()
        self.target_actor, self.target_critic = heads()
        self.target_actor.load_state_dict(self.actor.state_dict())
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.target_actor.requires_grad_(False)
        self.target_critic.requires_grad_(False)
        self.popart = PopArt(len(discounts))
        self.bins = ValueBins(model.bin_limit, model.bins, model.hl_gauss)

    @classmethod
    def seeded(
        cls,
        seed: int,
        model: ModelConfig,
        learning: LearningConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
    ) -> AgentModel:
        """A network whose initial weights follow from `seed`; PyTorch's own generator is left as it was."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(model, learning, observation_space, action_space)

    def states(
        self, timesteps: Timesteps, steps: Tensor, window: int | None = None, segment: Tensor | None = None
    ) -> Tensor:
        """``(B, T)`` timesteps at these steps of their rollouts to ``(B, T, D)``; see :meth:`Backbone.forward`."""
        return self.backbone(self.encoder(timesteps), steps, window, segment)

    def raw_to_values(self, raw: Tensor) -> Tensor:
        """Critic outputs ``(..., G, S, outputs)`` to values on the scale of (multiplied) returns, ``(..., G, S)``."""
        if self.independent_critic:
            return self.bins.values(raw)
        return self.popart.denormalize(self.popart(raw[..., 0]))

    def raw_to_normalized(self, raw: Tensor) -> Tensor:
        """Critic outputs to PopArt's scale, ``(..., G, S)``, for the dependent actor. PopArt gets no gradient."""
        if self.independent_critic:
            return self.popart.normalize(self.bins.values(raw))
        return self.popart.scale.detach()[:, None] * raw[..., 0] + self.popart.shift.detach()[:, None]

    @torch.no_grad()
    def update_targets(self, rate: float) -> None:
        """Move the target heads towards the heads."""
        for online, target in ((self.actor, self.target_actor), (self.critic, self.target_critic)):
            mine, theirs = ([p.detach() for p in module.parameters()] for module in (target, online))
            torch._foreach_lerp_(mine, theirs, rate)

    def optimized(self) -> list[nn.Parameter]:
        """The parameters that gradients move."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
