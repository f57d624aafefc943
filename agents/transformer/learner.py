"""One update: slices in, losses, one optimizer step on the shared trunk, targets."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
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
    reduce_random_pair,
    td_targets,
)
from .replay import Batch
from .throughput import counted_flops, matmul_flops_per_second

# Of hidden activations at a time on a CPU: 1 MiB.
_CACHED_FLOATS = 2**18

# Of torch.compile.
_BACKEND = "inductor"


class NonFiniteLossError(RuntimeError):
    """An input, a loss or a gradient is NaN or infinite; the message names the tensor."""


@dataclass(slots=True)
class Slices:
    """A :class:`~.replay.Batch` on the learner's device; of N transitions in all.

    Attributes:
        observations: As in the batch, and so are `actions`, `rewards` and `terminated`.
        actions: Before each observation.
        rewards: Likewise.
        terminated: ``(B, L)``.
        steps: ``(B, L + 1)`` int64: step of each timestep in its rollout.
        exists: ``(B, L + 1)`` bool: no padding.
        row: ``(N,)``: slice of each transition.
        place: ``(N,)``: its timestep there.
        fault: What is wrong with the data, if anything.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    steps: Tensor
    exists: Tensor
    row: Tensor
    place: Tensor
    fault: str | None

    @property
    def tokens(self) -> int:
        """N."""
        return len(self.row)


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

    def split(self, size: int) -> list[Transitions]:
        """Parts of at most `size` transitions, in order."""
        columns = (torch.split(getattr(self, field.name), size) for field in fields(self))
        return [Transitions(*parts) for parts in zip(*columns, strict=True)]


class Learner:
    """Owns the optimizer and performs updates.

    Args:
        model: What to train.
        config: How.
        seed: Of dropout and sampled actions: update u draws from a stream fixed by (seed, u), so that a resumed run
            repeats what an uninterrupted one does.
        device: Where; bf16 autocast on CUDA, float32 on CPU.
        total: Updates of the whole run, before whose end the rate cools down; None never does.
    """

    def __init__(
        self,
        model: AgentModel,
        config: LearningConfig,
        seed: int,
        device: torch.device,
        total: int | None = None,
    ) -> None:
        self.model = model.to(device)
        self.total = total
        self.config = config
        self.device = device
        self.updates = 0
        self._seed = seed
        self._flops_per_token = 0.0
        self._discounts = torch.tensor(config.discounts, device=device)
        self.optimizer = torch.optim.AdamW(
            model.optimized(), lr=config.rate, weight_decay=config.weight_decay, fused=device.type == "cuda"
        )
        if device.type == "cuda" if config.compile is None else config.compile:
            # Slices differ in length and number of timesteps from update to update: shapes stay symbolic.
            for module in (model.backbone, model.critic, model.target_critic):
                module.compile(dynamic=True, backend=_BACKEND)

    def prepare(self, batch: Batch) -> Slices:
        """Copy a batch to the device without waiting, so that an earlier batch can be learnt from meanwhile."""

        def tensor(array: npt.NDArray[Any]) -> Tensor:
            host = torch.from_numpy(np.ascontiguousarray(array))
            return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

        floats = {"observations": batch.observations, "rewards": batch.rewards}
        bad = [name for name, a in floats.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
        steps = batch.first_step[:, None] + np.arange(batch.mask.shape[1] + 1)
        # Computed on the host: a mask on a GPU would have to wait for its number of True entries.
        row, place = np.nonzero(batch.mask)
        return Slices(
            observations=tensor(batch.observations),
            actions=tensor(batch.actions),
            rewards=tensor(batch.rewards),
            terminated=tensor(batch.terminated),
            steps=tensor(steps),
            exists=tensor(np.concatenate([batch.mask[:, :1], batch.mask], axis=1)),
            row=tensor(row),
            place=tensor(place),
            fault=f"The replay's {bad[0]} are not finite" if bad else None,
        )

    def update(self, batch: Batch | Slices) -> dict[str, float]:
        """One optimizer step.

        Returns:
            Numbers for the log.

        Raises:
            NonFiniteLossError: An input, a loss or the gradient is not finite. No optimizer step is made of it; go on
                from a checkpoint.
        """
        slices = self.prepare(batch) if isinstance(batch, Batch) else batch
        if slices.fault:
            raise NonFiniteLossError(f"{slices.fault} at update {self.updates}.")
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        with _seeded(self._seed, self.updates, self.device):
            if self._flops_per_token:
                numbers = self._accumulate(slices)
            else:
                numbers, flops = counted_flops(lambda: self._accumulate(slices))
                self._flops_per_token = flops / slices.tokens
            numbers["gradient_norm"] = torch.nn.utils.clip_grad_norm_(self.model.optimized(), self.config.clip)
            # One transfer from the device for all of them.
            shown = dict(zip(numbers, torch.stack([n.float() for n in numbers.values()]).tolist(), strict=True))
            for name, number in shown.items():
                if not math.isfinite(number):
                    raise NonFiniteLossError(f"The {name} is {number} at update {self.updates}.")
            self.optimizer.step()
        self.model.update_targets(self.config.target_rate)
        self.updates += 1
        return shown

    @property
    def rate(self) -> float:
        """Of the optimizer at the next update."""
        rising = (self.updates + 1) / max(1, self.config.warmup)
        left = 1.0 if self.total is None else (self.total - self.updates) / max(1, self.config.cooldown)
        return self.config.rate * max(0.0, min(1.0, rising, left))

    def flop_utilization(self, tokens_per_second: float) -> float:
        """Share of a large matrix product's speed here that this many transitions a second reach; 0 if unknown."""
        if not self._flops_per_token:
            return 0.0
        return self._flops_per_token * tokens_per_second / matmul_flops_per_second(self.device)

    def _accumulate(self, slices: Slices) -> dict[str, Tensor]:
        """Gradients of the loss; its parts, and more numbers for the log.

        The heads work through the timesteps in parts and pass the trunk its gradient once, in the end: their hidden
        layers, one for every critic, discount and sampled action, are by far the largest tensors of an update.
        """
        autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=_half_precision(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        with autocast:
            t = self._transitions(slices)
            size = self._part(t)
            targets = torch.cat([self._targets(part) for part in t.split(size)])
        self.model.popart.update(targets)
        trunk, t.state = t.state, t.state.detach().requires_grad_()
        sums: dict[str, Tensor] = {}
        for part, target in zip(t.split(size), torch.split(targets, size), strict=True):
            with autocast:
                losses, numbers = self.losses(part, target)
            share = len(target) / len(targets)
            loss = losses["actor"] + self.config.critic_weight * losses["critic"]
            torch.autograd.backward(share * loss)
            for name, value in {**losses, **numbers}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + share * value.detach()
        torch.autograd.backward(trunk, t.state.grad)
        return sums

    def _part(self, t: Transitions) -> int:
        """Timesteps for the heads at once: all of them on a GPU, what the cache holds on a CPU."""
        if self.device.type == "cuda":
            return len(t.reward)
        critics, actions, hidden = self.model.critic.from_action.shape
        judged = self.config.value_samples
        if self.config.actor == "dependent":
            judged = actions if self.model.actions.discrete else 1
        return max(1, _CACHED_FLOATS // (critics * len(self.config.discounts) * judged * hidden))

    # ---- from slices to transitions ----

    def _transitions(self, s: Slices) -> Transitions:
        start = (s.steps == 0).float()
        timesteps = Timesteps(
            observation=s.observations,
            previous_action=self.model.actions.as_input(s.actions) * (1 - start)[..., None],
            previous_reward=s.rewards,
            start=start,
        )
        self.model.encoder.observe(timesteps, s.exists)
        states = self.model.states(timesteps, s.steps)
        return Transitions(
            state=states[s.row, s.place],
            next_state=states[s.row, s.place + 1].detach(),
            action=s.actions[s.row, s.place + 1],
            reward=s.rewards[s.row, s.place + 1] * self.config.reward_multiplier,
            terminated=s.terminated[s.row, s.place],
        )

    # ---- losses ----

    def losses(self, t: Transitions, targets: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The critic's and the actor's loss, and numbers for the log.

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
        numbers["target"] = targets[:, -1].mean()
        return {"critic": critic.mean(), "actor": actor.mean()}, numbers

    @torch.no_grad()
    def _targets(self, t: Transitions) -> Tensor:
        """TD targets ``(N, G)`` from target heads and one sampled action, over a random pair of critics."""
        action = self.model.target_actor(t.next_state).sample(1)
        values = self.model.raw_to_values(self.model.target_critic(t.next_state, action))[..., 0]
        reduced = reduce_random_pair(values, minimum=self.config.actor == "dependent")
        return td_targets(t.reward, t.terminated, self._discounts, reduced)

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
        kept = (advantage > self.config.filter_threshold).float().mean()
        return loss, {"filter": kept, "value": average[:, -1].mean()}

    def _climb(self, t: Transitions, policy: DiscretePolicy | GaussianPolicy) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the ensemble's least normalized value of the policy's own actions."""
        state = t.state.detach()  # the actor loss reaches the trunk through the policy alone
        with _frozen(self.model.critic), _frozen(self.model.popart):
            if isinstance(policy, DiscretePolicy):
                with torch.no_grad():
                    least = self.model.raw_to_normalized(self.model.critic(state, None)).amin(dim=0)
                loss = expected_value_loss(policy.probabilities, least)
            else:
                raw = self.model.critic(state, policy.sample(1))
                loss = -self.model.raw_to_normalized(raw)[..., 0].amin(dim=0)
        return loss, {"value": -loss.detach()[:, -1].mean()}


def _half_precision(device: torch.device) -> bool:
    return device.type == "cuda"


@contextlib.contextmanager
def _seeded(seed: int, stream: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's global generators, which dropout uses, and restore their states afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + stream) % 2**63)
        yield


@contextlib.contextmanager
def _frozen(module: torch.nn.Module) -> Iterator[None]:
    """Pass no gradients to these parameters meanwhile."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
