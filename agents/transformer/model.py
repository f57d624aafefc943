"""The whole network: timesteps to states, states to policies and values."""

from __future__ import annotations

import copy
from typing import Any, Final

import gymnasium as gym
import torch
from torch import Tensor, nn

from mtbench.errors import UsageError

from .backbone import Backbone
from .config import LearningConfig, ModelConfig
from .encoders import Timesteps, make_encoder
from .heads import Actor, Baseline, CriticEnsemble
from .objectives import PopArt, ValueBins, symlog


class ActionSpec:
    """The kind and the size of an action space, and how actions enter a timestep.

    Args:
        space: Of one environment.
        symlog: Whether rewards and actions enter by their symlog.

    Raises:
        UsageError: The space is neither Discrete nor a bounded vector.
    """

    def __init__(self, space: gym.Space[Any], symlog: bool = False) -> None:
        self.symlog = symlog
        if isinstance(space, gym.spaces.Discrete):
            self.discrete: bool = True
            self.size: int = int(space.n)
        elif isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and space.is_bounded():
            self.discrete, self.size = False, space.shape[0]
        else:
            raise UsageError(f"The reference agent needs Discrete or bounded vector actions, not {space}.")

    def timesteps(
        self, observation: Any, action: Tensor, reward: Tensor, steps: Tensor, sequence: Tensor | None = None
    ) -> Timesteps:
        """What the encoder takes of some timesteps.

        Args:
            observation: A tree of ``(M, ...)``.
            action: The action before each observation; it does not count at the start of a rollout.
            reward: ``(M,)`` float32: likewise.
            steps: ``(M,)`` int64: the step of each in its rollout.
            sequence: ``(M,)`` int64: the slice of each, when learning.
        """
        start = (steps == 0).float()
        before = self._as_input(action) * (1 - start)[..., None]
        if self.symlog:
            before, reward = symlog(before), symlog(reward)
        return Timesteps(observation, before, reward, start, sequence)

    def _as_input(self, action: Tensor) -> Tensor:
        """One-hot ``(..., A)`` float32, or as they are."""
        if not self.discrete:
            return action
        # F.one_hot reads the largest index first, and would make a GPU wait.
        return (action[..., None] == torch.arange(self.size, device=action.device)).float()


class AgentModel(nn.Module):
    """Encoder, backbone, heads, perhaps a baseline, and the targets of these heads (the sequence model has none).

    Args:
        model: Sizes.
        learning: Decides the discounts and what the critics put out.
        observation_space: Of one environment.
        action_space: Of one environment. Continuous actions are in (-1, 1) here; the collector rescales them.
    """

    actor: Actor
    critic: CriticEnsemble
    target_actor: Actor
    target_critic: CriticEnsemble

    def __init__(
        self,
        model: ModelConfig,
        learning: LearningConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
    ) -> None:
        super().__init__()
        self.actions: Final = ActionSpec(action_space, model.symlog_inputs)
        self.independent_critic: Final = learning.critic == "independent"
        discounts = learning.discounts
        self.encoder: Final = make_encoder(observation_space, self.actions.size, model)
        self.backbone: Final = Backbone(
            model.width,
            model.feedforward,
            model.layers,
            model.heads,
            model.context,
            model.dropout,
            recompute=model.recompute,
            input_norm=model.encoder_norm,
            convolution=model.convolution,
        )
        outputs = model.bins if self.independent_critic else 1

        def heads() -> tuple[Actor, CriticEnsemble]:
            size, discrete = self.actions.size, self.actions.discrete
            bounds = model.probability_floor, model.probability_ceiling
            actor = Actor(model.width, model.head, len(discounts), size, discrete, bounds)
            critics = CriticEnsemble(
                model.width,
                model.head,
                discounts,
                size,
                discrete,
                outputs,
                model.critics,
                norm=model.critic_norm,
                gates=model.action_gates,
            )
            return actor, critics

        self.actor, self.critic = heads()
        self.target_actor, self.target_critic = heads()
        self.target_actor.load_state_dict(self.actor.state_dict())
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.target_actor.requires_grad_(False)
        self.target_critic.requires_grad_(False)
        self.baseline: Final = (
            Baseline(model.width, model.head, len(discounts), model.bins) if learning.baseline else None
        )
        self.baseline_share: Final = learning.baseline
        self.target_baseline: Final = copy.deepcopy(self.baseline)
        if self.target_baseline is not None:
            self.target_baseline.requires_grad_(False)
        self.popart: Final = PopArt(len(discounts), learned=learning.popart_learned)
        self.bins: Final = ValueBins(model.bin_limit, model.bins, model.hl_gauss)

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

    def embedded(self, timesteps: Timesteps, steps: Tensor, there: Tensor | None = None) -> Tensor:
        """Timesteps in rows, as the Transformer takes them.

        Args:
            timesteps: M of them.
            steps: ``(R, W)``: the step of each place in its rollout.
            there: ``(M,)`` int64: where each timestep lies, in R times W. None: they are all places in order.

        Returns:
            ``(R, W, D)``.
        """
        encoded = self.encoder(timesteps)
        if there is not None:
            encoded = encoded.new_zeros(steps.numel(), encoded.shape[-1]).index_copy(0, there, encoded)
        return encoded.view(*steps.shape, -1)

    def raw_to_values(self, raw: Tensor) -> Tensor:
        """Critic outputs ``(..., G, S, outputs)`` to values on the scale of (multiplied) returns, ``(..., G, S)``."""
        if self.independent_critic:
            return self.bins.values(raw)
        return self.popart.denormalize(self.popart(raw[..., 0]))

    def baseline_values(self, logits: Tensor) -> Tensor:
        """A baseline's outputs ``(..., G, K)`` to the part of the values that critics leave to it, ``(..., G)``."""
        return self.baseline_share * self.bins.values(logits)

    def raw_to_normalized(self, raw: Tensor) -> Tensor:
        """Critic outputs to PopArt's scale, ``(..., G, S)``, for the dependent actor. PopArt gets no gradient."""
        if self.independent_critic:
            return self.popart.normalize(self.bins.values(raw))
        return self.popart.scale.detach()[:, None] * raw[..., 0] + self.popart.shift.detach()[:, None]

    @torch.no_grad()
    def update_targets(self, rate: float) -> None:
        """Move the target heads towards the heads."""
        for online, target in ((self.actor, self.target_actor), (self.critic, self.target_critic)):
            _move(target, online, rate)
        if self.baseline is not None and self.target_baseline is not None:
            _move(self.target_baseline, self.baseline, rate)

    @torch.no_grad()
    def follow(self, other: AgentModel, rate: float) -> None:
        """Move all but the targets towards another network's, and take over its statistics."""
        for name in ("encoder", "backbone", "actor", "critic", "baseline", "popart"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is None:
                continue
            _move(mine, theirs, rate)
            buffers = list(mine.buffers())
            if buffers:
                torch._foreach_copy_(buffers, list(theirs.buffers()))

    def optimized(self) -> list[nn.Parameter]:
        """The parameters that gradients move."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def _move(module: nn.Module, towards: nn.Module, rate: float) -> None:
    """Move the parameters of a module towards those of another one like it."""
    mine, theirs = ([p.detach() for p in one.parameters()] for one in (module, towards))
    if mine:
        torch._foreach_lerp_(mine, theirs, rate)
