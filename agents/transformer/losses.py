"""From slices to losses: transitions, TD targets, and the losses of critic and actor."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from .config import LearningConfig
from .heads import DiscretePolicy, GaussianPolicy
from .model import AgentModel
from .objectives import (
    AddUp,
    classification_loss,
    expected_value_loss,
    filtered_imitation_loss,
    random_pair,
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
        reward: ``(N, G)``: multiplied, and the discounted sum of all rewards before `next_state`.
        discount: ``(N, G)``: of `next_state`'s value; 0 where nothing follows.
        weight: ``(N,)`` float32: 0 for a place without a transition; None where all have one.
        next: ``(N, G)``: the target baseline's part of the next state's value. None without one, as what follows.
        embedded: ``(N, D)``: the timestep as the baseline takes it.
        step: ``(N,)`` int64: its step in its rollout.
    """

    state: Tensor
    next_state: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    weight: Tensor | None
    next: Tensor | None = None
    embedded: Tensor | None = None
    step: Tensor | None = None

    def __len__(self) -> int:
        return len(self.reward)

    def split(self, size: int) -> list[Transitions]:
        """Parts of at most `size` transitions, in order."""
        if size >= len(self):
            return [self]
        columns = [getattr(self, field.name) for field in fields(self)]
        parts = [[None] * -(-len(self) // size) if c is None else torch.split(c, size) for c in columns]
        return [Transitions(*part) for part in zip(*parts, strict=True)]


class Losses:
    """The losses of a model on slices.

    Args:
        model: The network.
        config: Which losses, and their constants.
        device: Of model and slices.
        add_up: Adds up the statistics of inputs over all ranks.
    """

    def __init__(
        self, model: AgentModel, config: LearningConfig, device: torch.device, add_up: AddUp | None = None
    ) -> None:
        self.model: Final = model
        self.config: Final = config
        self._add_up = add_up
        self._discounts = torch.tensor(config.discounts, device=device)
        self._equal = torch.ones_like(self._discounts)
        self._early = (1 - self._discounts) / (1 - self._discounts).mean()
        self._shares = self._equal.clone()

    def weigh_horizons(self, updates: int) -> None:
        """Set what the critics of each discount count in the loss after so many updates: `horizon_warmup`.

        In place, because an update that is recorded as a CUDA graph reads it.
        """
        if self.config.horizon_warmup:
            self._shares.copy_(self._early if updates < self.config.horizon_warmup else self._equal)

    def transitions(self, s: Slices) -> Transitions:
        """Run the trunk over the slices. In training, the statistics of inputs and spectral norms are updated first."""
        flattened = [t.flatten(0, 1) for t in (s.actions, s.rewards, s.steps)]
        actions, rewards, steps = flattened if s.there is None else [t[s.there] for t in flattened]
        timesteps = self.model.actions.timesteps(s.observations, actions, rewards, steps, s.sequence)
        if self.model.training:
            self.model.encoder.observe(timesteps, s.exists, self._add_up)
            for layer in self.model.backbone.reparametrized():
                layer.update_norm()
        embedded = self.model.embedded(timesteps, s.steps, s.there)
        states = self.model.backbone(embedded, s.steps, segment_BT=s.segment)
        reward, discount = self._returns(s)
        # Every place of a row, in order: the gradient of a slice is a copy, that of a lookup is added up.
        state = states[s.row, s.place] if s.weight is None else states[:, :-1].flatten(0, 1)
        t = Transitions(
            state=state,
            next_state=states[s.row, s.place + s.ahead].detach(),
            action=s.actions[s.row, s.place + 1],
            reward=reward * self.config.reward_multiplier,
            discount=torch.where(s.terminated[:, None], 0.0, discount),
            weight=s.weight,
        )
        if self.model.target_baseline is not None:
            t.embedded, t.step = embedded[s.row, s.place], s.steps[s.row, s.place]
            with torch.no_grad():
                values = self.model.baseline_values(self.model.target_baseline(embedded, s.steps))
            t.next = values[s.row, s.place + s.ahead]
        return t

    def _returns(self, s: Slices) -> tuple[Tensor, Tensor]:
        """The discounted rewards of each transition's next steps, and the discount of what follows: ``(N, G)`` each."""
        reward = s.rewards[s.row, s.place + 1][:, None].expand(-1, len(self._discounts))
        discount = self._discounts.expand_as(reward)
        for step in range(1, self.config.n_step):
            there = step < s.ahead
            later = s.rewards[s.row, s.place + 1 + torch.where(there, step, 0)]
            reward = reward + discount * torch.where(there, later, 0.0)[:, None]
            discount = torch.where(there[:, None], discount * self._discounts, discount)
        return reward, discount

    @torch.no_grad()
    def targets(self, t: Transitions) -> Tensor:
        """TD targets ``(N, G)`` from the target heads, over a random pair of critics.

        A state's value is that of one sampled action; in the dependent update, and with discrete actions, it is the
        expectation over all actions.
        """
        policy, dependent = self.model.target_actor(t.next_state), self.config.actor == "dependent"
        if dependent and isinstance(policy, DiscretePolicy) and self.config.exact_expectations:
            values = self.model.raw_to_values(self.model.target_critic(t.next_state, None))
            values = (values * policy.probabilities).sum(dim=-1)
        else:
            values = self.model.raw_to_values(self.model.target_critic(t.next_state, policy.sample(1)))[..., 0]
        pair = random_pair(values, by_discount=self.config.pairs == "discount")
        least = self.config.target == "least" or (dependent and self.config.target == "by-actor")
        value = pair.amin(dim=0) if least else pair.mean(dim=0)
        return t.reward + t.discount * (value if t.next is None else value + t.next)

    def losses(self, t: Transitions, targets: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The critic's and the actor's loss, and numbers for the log: weighted means over the transitions.

        Args:
            t: Transitions.
            targets: ``(N, G)``, of the critic.
        """
        losses: dict[str, Tensor] = {}
        left, told = targets, None
        if self.model.baseline is not None and t.embedded is not None:
            logits = self.model.baseline(t.embedded, t.step)
            losses["baseline"] = classification_loss(logits, self.model.bins.labels(targets))
            # The newest baseline's, not the target's: what that has not learnt yet, critics would learn beside it, and
            # the value of the next state would hold it twice.
            told = self.model.baseline_values(logits.detach())
            left = targets - told
        taken = t.action[:, None, None] if self.model.actions.discrete else t.action[:, None, None, :]
        raw = self.model.critic(t.state, taken)  # (E, N, G, 1, outputs)
        if self.config.critic == "independent":
            critic = classification_loss(raw[..., 0, :], self.model.bins.labels(left))
        else:
            normalized = self.model.popart.normalize(targets[..., None])
            critic = F.mse_loss(self.model.popart(raw[..., 0]), normalized.expand_as(raw[..., 0]), reduction="none")
        policy = self.model.actor(t.state if self.config.actor_trunk else t.state.detach())
        if self.config.actor == "independent":
            actor, numbers = self._imitate(t, policy, self.model.raw_to_values(raw.detach())[..., 0])
        else:
            actor, numbers = self._climb(t, policy)
        numbers["target"] = targets[:, -1:]
        if self.config.critic == "independent":
            numbers["clipped"] = self.model.bins.outside(targets).float()
        if told is not None:
            numbers["value"] = numbers["value"] + told[:, -1:]
        critic = critic.flatten(2)
        if self.config.horizon_warmup:
            critic = critic * self._shares
        losses |= {"critic": critic.mean(dim=0), "actor": actor}

        def means(parts: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: weighted_mean(values, t.weight) for name, values in parts.items()}

        return means(losses), means(numbers)

    def _imitate(
        self, t: Transitions, policy: DiscretePolicy | GaussianPolicy, taken: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Filtered imitation; `taken` is each critic's value of the actions taken, ``(E, N, G)``."""
        threshold, own_actions = self.config.filter_threshold, self.config.own_actions
        with torch.no_grad():
            actions, shares, values = self._own_actions(t, policy)
            average = (values * shares).sum(dim=-1)
            advantage = self._advantage(taken - average)
            kept = (advantage > threshold).float()
        action = t.action[:, None] if self.model.actions.discrete else t.action[:, None, :]
        loss = filtered_imitation_loss(policy.log_prob(action), advantage, threshold)
        if own_actions and isinstance(policy, DiscretePolicy):
            # Its gradient is that of the chance that the policy's action passes the filter.
            advantages = self._advantage(values - average[..., None])
            each = filtered_imitation_loss(policy.log_probs(actions), advantages, threshold)
            loss = loss + own_actions * (shares * each).sum(dim=-1)
        return loss, {"filter": kept, "value": average.mean(dim=0)[:, -1:]}

    def _advantage(self, advantages: Tensor) -> Tensor:
        """What the filter compares with its threshold, of each critic's advantage ``(E, ...)``."""
        advantage = advantages.mean(dim=0)
        if self.config.filter_doubt:
            advantage = advantage - self.config.filter_doubt * advantages.std(dim=0, correction=0)
        return advantage / self.config.reward_multiplier if self.config.filter_scale == "returns" else advantage

    def _own_actions(
        self, t: Transitions, policy: DiscretePolicy | GaussianPolicy
    ) -> tuple[Tensor | None, Tensor | float, Tensor]:
        """Actions of the policy, what each counts in its average, and each critic's values of them.

        Returns:
            Actions as critics take them, or None for all; shares that add up to 1; values ``(E, N, G, actions)``.
        """
        actions: Tensor | None
        shares: Tensor | float
        if self.config.exact_actions and isinstance(policy, DiscretePolicy):
            actions, shares = _likeliest(policy, self.config.exact_actions, self.config.value_samples)
        elif self.config.shared_samples:
            actions, shares = policy.sample(self.config.value_samples), 1 / self.config.value_samples
        else:  # every critic judges actions of its own
            critics = self.model.critic.from_state.shape[0]
            samples = policy.sample(critics * self.config.value_samples)
            actions, shares = torch.stack(torch.chunk(samples, critics, dim=2)), 1 / self.config.value_samples
        return actions, shares, self.model.raw_to_values(self.model.critic(t.state, actions))

    def _climb(self, t: Transitions, policy: DiscretePolicy | GaussianPolicy) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the ensemble's least normalized value of the policy's own actions."""
        state = t.state.detach()  # the actor loss reaches the trunk through the policy alone
        if isinstance(policy, DiscretePolicy):
            with torch.no_grad():
                values = self.model.raw_to_normalized(self.model.critic(state, None))
            if self.config.least == "by-action":
                loss = expected_value_loss(policy.probabilities, values.amin(dim=0))
            else:
                loss = expected_value_loss(policy.probabilities, values).amax(dim=0)
        else:
            fixed = {name: parameter.detach() for name, parameter in self.model.critic.named_parameters()}
            raw = functional_call(self.model.critic, fixed, (state, policy.sample(1)))
            loss = -self.model.raw_to_normalized(raw)[..., 0].amin(dim=0)
        return loss, {"value": -loss.detach()[:, -1:]}


def _likeliest(policy: DiscretePolicy, count: int, samples: int) -> tuple[Tensor | None, Tensor]:
    """Actions whose weighted values add up to a policy's own: the likeliest, and a sample of the others.

    An estimate without bias (Liu et al. 2019, "Rao-Blackwellized Stochastic Gradients for Discrete Distributions").

    Returns:
        ``(N, G, count + samples)`` int64, or None for all actions; and what each counts, ``(N, G, actions)``.
    """
    probabilities = policy.probabilities.detach()
    if count + samples >= probabilities.shape[-1]:
        return None, probabilities
    exact, likeliest = probabilities.topk(count, dim=-1, sorted=False)
    others = DiscretePolicy(probabilities.scatter(-1, likeliest, 0.0))
    share = others.probabilities.sum(dim=-1, keepdim=True) / samples
    return torch.cat([likeliest, others.sample(samples)], dim=-1), torch.cat([exact, *[share] * samples], dim=-1)
