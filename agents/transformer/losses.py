"""From slices to losses: transitions, TD targets, and the losses of critic and actor."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from .config import LearningConfig
from .encoders import Timesteps
from .heads import DiscretePolicy, GaussianPolicy
from .model import AgentModel
from .objectives import (
    classification_loss,
    expected_value_loss,
    filtered_imitation_loss,
    reduce_random_pair,
    td_targets,
    weighted_mean,
)
from .slices import Slices


@dataclass(slots=True)
class Transitions:
    """N transitions.

    Attributes:
        state: ``(N, D)``, with gradients to the trunk.
        next_state: ``(N, D)``, detached.
        action: ``(N,)`` int64 or ``(N, A)`` float32.
        reward: ``(N,)``, multiplied.
        terminated: ``(N,)`` bool.
        weight: ``(N,)`` float32: 0 for a place without a transition.
    """

    state: Tensor
    next_state: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    weight: Tensor

    def split(self, size: int) -> list[Transitions]:
        """Parts of at most `size` transitions, in order."""
        columns = (torch.split(getattr(self, field.name), size) for field in fields(self))
        return [Transitions(*parts) for parts in zip(*columns, strict=True)]


class Losses:
    """The losses of a model on slices.

    Args:
        model: The network.
        config: Which losses, and their constants.
        device: Of model and slices.
    """

    def __init__(self, model: AgentModel, config: LearningConfig, device: torch.device) -> None:
        self.model, self.config = model, config
        self._discounts = torch.tensor(config.discounts, device=device)

    def transitions(self, s: Slices) -> Transitions:
        """Run the trunk over the slices. In training, the statistics of inputs and spectral norms are updated first."""
        start = (s.steps == 0).float()
        timesteps = Timesteps(
            observation=s.observations,
            previous_action=self.model.actions.as_input(s.actions) * (1 - start)[..., None],
            previous_reward=s.rewards,
            start=start,
        )
        if self.model.training:
            self.model.encoder.observe(timesteps, s.exists)
            for layer in self.model.backbone.reparametrized():
                layer.update_norm()
        states = self.model.states(timesteps, s.steps, segment=s.segment)
        return Transitions(
            state=states[s.row, s.place],
            next_state=states[s.row, s.place + 1].detach(),
            action=s.actions[s.row, s.place + 1],
            reward=s.rewards[s.row, s.place + 1] * self.config.reward_multiplier,
            terminated=s.terminated,
            weight=s.weight,
        )

    @torch.no_grad()
    def targets(self, t: Transitions) -> Tensor:
        """TD targets ``(N, G)`` from target heads and one sampled action, over a random pair of critics."""
        action = self.model.target_actor(t.next_state).sample(1)
        values = self.model.raw_to_values(self.model.target_critic(t.next_state, action))[..., 0]
        reduced = reduce_random_pair(values, minimum=self.config.actor == "dependent")
        return td_targets(t.reward, t.terminated, self._discounts, reduced)

    def losses(self, t: Transitions, targets: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The critic's and the actor's loss, and numbers for the log: weighted means over the transitions.

        Args:
            t: Transitions.
            targets: ``(N, G)``, of the critic.
        """
        taken = t.action[:, None, None] if self.model.actions.discrete else t.action[:, None, None, :]
        raw = self.model.critic(t.state, taken)  # (E, N, G, 1, outputs)
        if self.config.critic == "independent":
            critic = classification_loss(raw[..., 0, :], self.model.bins.labels(targets))
        else:
            normalized = self.model.popart.normalize(targets[..., None])
            critic = F.mse_loss(self.model.popart(raw[..., 0]), normalized.expand_as(raw[..., 0]), reduction="none")
        policy = self.model.actor(t.state)
        if self.config.actor == "independent":
            actor, numbers = self._imitate(t, policy, self.model.raw_to_values(raw.detach())[..., 0].mean(dim=0))
        else:
            actor, numbers = self._climb(t, policy)
        numbers["target"] = targets[:, -1:]
        if self.config.critic == "independent":
            numbers["clipped"] = self.model.bins.outside(targets).float()
        losses = {"critic": critic.flatten(2).mean(dim=0), "actor": actor}

        def means(parts: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: weighted_mean(values, t.weight) for name, values in parts.items()}

        return means(losses), means(numbers)

    def _imitate(
        self, t: Transitions, policy: DiscretePolicy | GaussianPolicy, taken: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Filtered imitation; `taken` is the ensemble's mean value of the actions taken, ``(N, G)``."""
        with torch.no_grad():
            critics = self.model.critic.from_state.shape[0]
            drawn = policy.sample(critics * self.config.value_samples)
            samples = torch.stack(torch.chunk(drawn, critics, dim=2))  # every critic judges actions of its own
            average = self.model.raw_to_values(self.model.critic(t.state, samples)).mean(dim=(0, -1))
            advantage = taken - average
        action = t.action[:, None] if self.model.actions.discrete else t.action[:, None, :]
        loss = filtered_imitation_loss(policy.log_prob(action), advantage, self.config.filter_threshold)
        kept = (advantage > self.config.filter_threshold).float()
        return loss, {"filter": kept, "value": average[:, -1:]}

    def _climb(self, t: Transitions, policy: DiscretePolicy | GaussianPolicy) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the ensemble's least normalized value of the policy's own actions."""
        state = t.state.detach()  # the actor loss reaches the trunk through the policy alone
        if isinstance(policy, DiscretePolicy):
            with torch.no_grad():
                least = self.model.raw_to_normalized(self.model.critic(state, None)).amin(dim=0)
            loss = expected_value_loss(policy.probabilities, least)
        else:
            fixed = {name: parameter.detach() for name, parameter in self.model.critic.named_parameters()}
            raw = functional_call(self.model.critic, fixed, (state, policy.sample(1)))
            loss = -self.model.raw_to_normalized(raw)[..., 0].amin(dim=0)
        return loss, {"value": -loss.detach()[:, -1:]}
