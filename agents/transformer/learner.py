"""One update: slices in, one optimizer step on the shared trunk, targets moved. Nothing waits for the device.

On a GPU, or with ``learning.compile``, the loss and its gradients are compiled as one graph; a GPU replays the whole
update. On a CPU the heads work in parts that stay in the cache.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor

from .config import LearningConfig
from .distributed import ALONE, Ranks
from .graphs import alone, one_graph, replayed
from .losses import Losses
from .model import AgentModel
from .precision import half_precision
from .replay import Batch
from .slices import Prepared, Slices, prepare
from .throughput import counted_flops, matmul_flops_per_second

# Of hidden activations at a time on a CPU: 2 MiB. Smaller parts fit in smaller caches, but every part also adds up the
# gradients of all the heads' weights.
_CACHED_FLOATS = 2**19


class NonFiniteLossError(RuntimeError):
    """An input, a loss or a gradient is NaN or infinite; the message names the tensor."""


class Learner:
    """Owns the optimizer and performs updates.

    Attributes:
        acting: The network that acts: `model` itself, or with ``learning.ema_rate`` below 1 an average of its weights
            over the latest updates.

    Args:
        model: What to train.
        config: How.
        seed: Of dropout and sampled actions: update u draws from a stream fixed by (seed, u), so that a resumed run
            repeats what an uninterrupted one does.
        device: Where; bf16 autocast on CUDA, float32 on CPU.
        total: Updates of the whole run, before whose end the rate cools down; None never does.
        context: Most transitions of a slice. Compiled updates pad to it, so that their shapes repeat.
        ranks: Those that learn together; each draws dropout and actions of its own.
    """

    def __init__(
        self,
        model: AgentModel,
        config: LearningConfig,
        seed: int,
        device: torch.device,
        total: int | None = None,
        context: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model: Final = model.to(device)
        self.acting: Final = self.model if config.ema_rate == 1 else copy.deepcopy(self.model).requires_grad_(False)
        self.losses: Final = Losses(model, config, device, ranks.add_up)
        self.total: Final = total
        self.config: Final = config
        self.device: Final = device
        self.updates: int = 0
        self._seed, self._ranks = ranks.seed(seed), ranks
        self._flops_per_token = 0.0
        self._parameters = model.optimized()
        # Autograd's own may lie otherwise in memory than their parameters, which a fused optimizer step does not take.
        self._sum = ranks.gradient_sum(self._parameters)
        self._gradients = [torch.zeros_like(p) for p in self._parameters] if self._sum is None else self._sum.gradients
        # On a GPU the rate is a tensor too: a recorded step reads it anew.
        self._rate: Tensor | None = torch.zeros((), device=device) if device.type == "cuda" else None
        self.optimizer: Final = torch.optim.AdamW(
            self._parameters, lr=config.rate, weight_decay=config.weight_decay, betas=(0.9, config.beta2), fused=True
        )
        # Its kernel looks at both of these attributes, if one is there.
        setattr(self.optimizer, "grad_scale", None)  # noqa: B010
        for parameter in self._parameters:  # as the optimizer does before its first step
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self.compile: Final = device.type == "cuda" if config.compile is None else config.compile
        self._fixed_length = context if self.compile else None
        self._run: Callable[[Slices], dict[str, Tensor]] = self._update
        self._loss: Callable[[Slices], tuple[Tensor, dict[str, Tensor]]] = self._loss_at_once
        if self.compile:
            self._loss = one_graph(self._loss_at_once)
            self._run = replayed(self._update, device)

    def prepare(self, batch: Batch) -> Prepared:
        """Copy a batch to the device without waiting, so that an earlier batch can be learnt from meanwhile."""
        return self._ranks.agreed(prepare(batch, self.device, self._fixed_length, self.config.n_step))

    def update(self, batch: Batch | Prepared) -> dict[str, Tensor]:
        """One optimizer step.

        It is left out where a loss or the gradient is not finite; :class:`Totals` tells, when it is read.

        Returns:
            Numbers for the log, on the device.

        Raises:
            NonFiniteLossError: An input is not finite.
        """
        prepared = self.prepare(batch) if isinstance(batch, Batch) else batch
        if prepared.fault:
            raise NonFiniteLossError(f"{prepared.fault} at update {self.updates}.")
        if not self.model.training:
            self.model.train()
        rate: float | Tensor = self.rate if self._rate is None else self._rate.fill_(self.rate)
        for group in self.optimizer.param_groups:  # a checkpoint may be of another device
            group.update(lr=rate, capturable=self._rate is not None)
        self.losses.weigh_horizons(self.updates)
        if self._sum is not None:
            self._sum.share.fill_(prepared.share)
        with _seeded(self._seed, self.updates, self.device):
            if self._flops_per_token:
                numbers = self._run(prepared.slices)
            else:
                with alone():
                    numbers, flops = counted_flops(lambda: self._update(prepared.slices))
                self._flops_per_token = flops / prepared.tokens
        self.updates += 1
        return numbers

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

    # ---- on the device ----

    def _update(self, slices: Slices) -> dict[str, Tensor]:
        gradients, numbers = self.gradients(slices)
        present = [gradient for gradient in gradients if gradient is not None]
        used = [
            (parameter, own)
            for parameter, own, gradient in zip(self._parameters, self._gradients, gradients, strict=True)
            if gradient is not None
        ]
        with torch.no_grad():
            clipped = [own for _, own in used]
            torch._foreach_copy_(clipped, present)
            if self._sum is not None:
                numbers = self._sum.add_up(numbers)
            norm = torch.nn.utils.get_total_norm(clipped)
            numbers["gradient_norm"] = norm
            finite = torch.stack([number.float() for number in numbers.values()]).isfinite().all()
            torch._foreach_mul_(clipped, (self.config.clip / (norm + 1e-6)).clamp(max=1.0))
            for parameter, own in used:
                parameter.grad = own
            # Where this is 1, the step does nothing.
            setattr(self.optimizer, "found_inf", 1.0 - finite.float())  # noqa: B010
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.model.update_targets(self.config.target_rate)
            if self.acting is not self.model:
                self.acting.follow(self.model, self.config.ema_rate)
        return numbers

    def gradients(self, slices: Slices) -> tuple[list[Tensor | None], dict[str, Tensor]]:
        """Gradients of the loss by parameter (None for one that has no part in it), and numbers for the log."""
        size = self._at_once()
        if size is not None and size < len(slices.row):
            return self._gradients_in_parts(slices, size)
        total, numbers = self._loss(slices)
        return list(torch.autograd.grad(total, self._parameters, allow_unused=True)), numbers

    def _loss_at_once(self, slices: Slices) -> tuple[Tensor, dict[str, Tensor]]:
        with self._autocast():
            t = self.losses.transitions(slices)
            targets = self.losses.targets(t)
        self.model.popart.update(targets, t.weight, self._ranks.add_up)
        with self._autocast():
            losses, numbers = self.losses.losses(t, targets)
        return self._total(losses), {name: value.detach() for name, value in (losses | numbers).items()}

    def _gradients_in_parts(self, slices: Slices, size: int) -> tuple[list[Tensor | None], dict[str, Tensor]]:
        """The heads work through the timesteps in parts and pass the trunk its gradient once, in the end.

        Their hidden layers, one for every critic, discount and sampled action, are by far the largest tensors of an
        update.
        """
        with self._autocast():
            t = self.losses.transitions(slices)
            targets = torch.cat([self.losses.targets(part) for part in t.split(size)])
        self.model.popart.update(targets, t.weight, self._ranks.add_up)
        trunk, t.state = t.state, t.state.detach()
        sums: dict[str, Tensor] = {}
        gradient = torch.zeros_like(t.state)
        of_parts = zip(t.split(size), torch.split(targets, size), torch.split(gradient, size), strict=True)
        for part, target, own in of_parts:
            # Its own rows alone: through `split`, every part's backward would write a gradient of all rows.
            part.state.requires_grad_().grad = own
            with self._autocast():
                losses, numbers = self.losses.losses(part, target)
            share = len(part) / len(t)
            torch.autograd.backward(share * self._total(losses))
            for name, value in {**losses, **numbers}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + share * value.detach()
        torch.autograd.backward(trunk, gradient)
        return [parameter.grad for parameter in self._parameters], sums

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half_precision(self.device))

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        values = losses["critic"] + losses["baseline"] if "baseline" in losses else losses["critic"]
        return losses["actor"] + self.config.critic_weight * values

    def _at_once(self) -> int | None:
        """Timesteps at once whose hidden layers a CPU's cache holds; None: all, in a compiled graph or on a GPU."""
        if self.compile or self.device.type == "cuda":
            return None
        critics, actions, hidden = self.model.critic.from_action.shape
        judged, discrete = self.config.value_samples, self.model.actions.discrete
        if self.config.actor == "dependent":
            judged = actions if discrete else 1
        elif discrete and self.config.exact_actions:
            judged = min(judged + self.config.exact_actions, actions)
        return max(1, _CACHED_FLOATS // (critics * len(self.config.discounts) * judged * hidden))


class Totals:
    """Sums of the numbers of updates, on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, numbers: dict[str, Tensor]) -> None:
        """Take in the numbers of an update."""
        for name, value in numbers.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._count += 1

    def read(self) -> dict[str, float]:
        """Their means, and empty the sums.

        Raises:
            NonFiniteLossError: One of them was not finite. The updates concerned have changed no weight, but go on
                from a checkpoint: what causes such numbers does not go away.
        """
        if not self._sums:
            return {}
        means = (torch.stack(list(self._sums.values())).float() / self._count).tolist()
        named = dict(zip(self._sums, means, strict=True))
        updates = self._count
        self._sums, self._count = {}, 0
        for name, mean in named.items():
            if not math.isfinite(mean):
                raise NonFiniteLossError(f"The {name} was {mean} in one of the last {updates} updates.")
        return named


@contextlib.contextmanager
def _seeded(seed: int, stream: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's global generators, which dropout uses, and restore their states afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + stream) % 2**63)
        yield
