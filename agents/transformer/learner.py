"""One update: slices in, losses, one optimizer step on the shared trunk, targets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import LearningConfig
from .encoders import Timesteps
from .heads import DiscretePolicy, GaussianPolicy
from .model import AgentModel
from .objectives import (
    classification_loss,
    expected_value_loss,
    filtered_imitation_loss,
    masked_mean,
    reduce_random_pair,
    td_targets,
)
from .replay import Batch


class NonFiniteLossError(RuntimeError):
    """An input, a loss or a gradient is NaN or infinite; the message names the tensor."""


@dataclass(slots=True)
class Transitions:
    """Transitions that exist, flat.

    Attributes:
        state: ``(N, D)``, with gradients to the trunk.
        next_state: ``(N, D)``, detached.
        action: ``(N,)`` int64 or ``(N, A)`` float32.
        reward: ``(N,)``, multiplied.
        terminated: ``(N,)`` bool.
    """

    state: Tensor
    next_state: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor


class Learner:
    """Owns the optimizer and performs updates.

    Args:
        model: What to train.
        config: How.
        seed: Of dropout and sampled actions: update u draws from a stream fixed by (seed, u), so that a resumed run
            repeats what an uninterrupted one does.
        device: Where; bf16 autocast on CUDA, float32 on CPU.
    """

    def __init__(self, model: AgentModel, config: LearningConfig, seed: int, device: torch.device) -> None:
        self.model = model.to(device)
        self.config = config
        self.device = device
        self.updates = 0
        self._seed = seed
        self._discounts = torch.tensor(config.discounts, device=device)
        self.optimizer = torch.optim.AdamW(
            model.optimized(), lr=config.rate, weight_decay=config.weight_decay, fused=device.type == "cuda"
        )

    def update(self, batch: Batch) -> dict[str, float]:
        """One optimizer step.

        Returns:
            Numbers for the log.

        Raises:
            NonFiniteLossError: An input, a loss or the gradient is not finite. No optimizer step is made of it; go on
                from a checkpoint.
        """
        for name in ("observations", "rewards"):
            array = getattr(batch, name)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise NonFiniteLossError(f"The replay's {name} are not finite at update {self.updates}.")
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * min(1.0, (self.updates + 1) / max(1, self.config.warmup))
        with _seeded(self._seed, self.updates, self.device):
            autocast = torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device.type == "cuda")
            with autocast:
                losses, numbers = self.losses(self._transitions(batch))
            loss = losses["actor"] + self.config.critic_weight * losses["critic"]
            self._refuse_non_finite({**losses})
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(self.model.optimized(), self.config.clip)
            self._refuse_non_finite({"gradient": norm})
            self.optimizer.step()
        self.model.update_targets(self.config.target_rate)
        self.updates += 1
        return {name: float(value.detach()) for name, value in {**losses, **numbers, "gradient_norm": norm}.items()}

    # ---- from slices to transitions ----

    def _transitions(self, batch: Batch) -> Transitions:
        def tensor(array: object) -> Tensor:
            return torch.as_tensor(array).to(self.device, non_blocking=True)

        mask, first = tensor(batch.mask), tensor(batch.first_step)
        steps = first[:, None] + torch.arange(mask.shape[1] + 1, device=self.device)
        start = (steps == 0).float()
        action = tensor(batch.actions)
        rewards = tensor(batch.rewards)
        timesteps = Timesteps(
            observation=tensor(batch.observations),
            previous_action=self.model.actions.as_input(action) * (1 - start)[..., None],
            previous_reward=rewards,
            start=start,
        )
        exists = torch.cat([mask[:, :1], mask], dim=1)
        self.model.encoder.observe(timesteps, exists)  # type: ignore[operator]
        states = self.model.states(timesteps, steps)
        return Transitions(
            state=states[:, :-1][mask],
            next_state=states[:, 1:][mask].detach(),
            action=action[:, 1:][mask],
            reward=rewards[:, 1:][mask] * self.config.reward_multiplier,
            terminated=tensor(batch.terminated)[mask],
        )

    # ---- losses ----

    def losses(self, t: Transitions) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The critic's and the actor's loss, and numbers for the log."""
        targets = self._targets(t)
        everywhere = torch.ones(len(targets), dtype=torch.bool, device=self.device)
        self.model.popart.update(targets, everywhere)
        taken = t.action[:, None, None] if self.model.actions.discrete else t.action[:, None, None, :]
        raw = self.model.critic(t.state, taken)  # (E, N, G, 1, outputs)
        if self.config.critic == "independent":
            labels = self.model.bins.labels(targets)  # (N, G, K)
            critic = classification_loss(raw[..., 0, :], labels)
        else:
            normalized = self.model.popart.normalize(targets[..., None])
            critic = F.mse_loss(self.model.popart(raw[..., 0]), normalized.expand_as(raw[..., 0]), reduction="none")
        policy = self.model.actor(t.state)
        if self.config.actor == "independent":
            actor, numbers = self._imitate(t, policy, self.model.raw_to_values(raw.detach())[..., 0].mean(dim=0))
        else:
            actor, numbers = self._climb(t, policy)
        numbers["target"] = targets[:, -1].mean()
        return {"critic": critic.mean(), "actor": masked_mean(actor, everywhere)}, numbers

    @torch.no_grad()
    def _targets(self, t: Transitions) -> Tensor:
        """TD targets ``(N, G)`` from target heads and one sampled action, over a random pair of critics."""
        action = self._as_samples(self.model.target_actor(t.next_state), 1)
        values = self.model.raw_to_values(self.model.target_critic(t.next_state, action))[..., 0]
        reduced = reduce_random_pair(values, minimum=self.config.actor == "dependent")
        return td_targets(t.reward, t.terminated, self._discounts, reduced)

    def _imitate(
        self, t: Transitions, policy: DiscretePolicy | GaussianPolicy, taken: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Filtered imitation; `taken` is the ensemble's mean value of the actions taken, ``(N, G)``."""
        with torch.no_grad():
            samples = self._as_samples(policy, self.config.value_samples)
            average = self.model.raw_to_values(self.model.critic(t.state, samples)).mean(dim=(0, -1))
            advantage = taken - average
        action = t.action[:, None] if self.model.actions.discrete else t.action[:, None, :]
        loss = filtered_imitation_loss(policy.log_prob(action), advantage, self.config.filter_threshold)
        kept = (advantage > self.config.filter_threshold).float().mean()
        return loss, {"filter": kept, "value": average[:, -1].mean()}

    def _climb(self, t: Transitions, policy: DiscretePolicy | GaussianPolicy) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the ensemble's least normalized value of the policy's own actions."""
        state = t.state.detach()  # the critic's opinion may move the policy, not the state it is about
        with _frozen(self.model.critic), _frozen(self.model.popart):
            if isinstance(policy, DiscretePolicy):
                with torch.no_grad():
                    least = self.model.raw_to_normalized(self.model.critic(state, None)).amin(dim=0)
                loss = expected_value_loss(policy.probabilities, least)
            else:
                raw = self.model.critic(state, policy.sample()[:, :, None])
                loss = -self.model.raw_to_normalized(raw)[..., 0].amin(dim=0)
        return loss, {"value": -loss.detach()[:, -1].mean()}

    def _as_samples(self, policy: DiscretePolicy | GaussianPolicy, count: int) -> Tensor:
        """`count` actions per discount, as the critic takes them: ``(N, G, S)`` or ``(N, G, S, A)``."""
        return torch.stack([policy.sample().detach() for _ in range(count)], dim=2)

    def _refuse_non_finite(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            if not torch.isfinite(value):
                raise NonFiniteLossError(f"The {name} is {float(value.detach())} at update {self.updates}.")


@contextlib.contextmanager
def _seeded(seed: int, stream: int, device: torch.device) -> Iterator[None]:
    """PyTorch's own generators, which dropout insists on, seeded within and left as they were without."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + stream) % 2**63)
        yield


@contextlib.contextmanager
def _frozen(module: torch.nn.Module) -> Iterator[None]:
    """No gradients to these parameters within."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
