"""The losses, as small pure functions (paper Section 3 and Appendix A).

Critic, ``independent``: cross-entropy to two-hot labels over symlog bins; ``dependent``: squared error on values that
one task-agnostic PopArt layer normalizes. Actor, ``independent``: imitate actions better than the policy's own average;
``dependent``: climb the critic. Every loss comes as one number per timestep and sees only timesteps that exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

# Adds up tensors over the ranks that learn together (distributed.py); the sums have the shapes of the tensors.
AddUp = Callable[..., list[Tensor]]


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context without autocast: float32 stays float32.

    In bfloat16, neighbouring numbers are 0.4 % apart. Near the end of long horizons values grow by less than that in
    one update, and the values of two actions differ by less. So logits, probabilities, values and targets are float32.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def symlog(x: Tensor) -> Tensor:
    """``sign(x) ln(|x| + 1)``, elementwise (equation 7)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of :func:`symlog` (equation 8)."""
    return x.sign() * x.abs().expm1()


class ValueBins(nn.Module):
    """K bins evenly spaced in symlog space, and the way from values to labels over them and back.

    Args:
        limit: Bins span values from minus to plus this.
        count: K.
        smoothing: None gives two-hot labels; a number gives HL-Gauss labels (Farebrother et al. 2024) of that
            standard deviation, in bin widths.
    """

    centers: Tensor

    def __init__(self, limit: float, count: int, smoothing: float | None = None) -> None:
        super().__init__()
        if not limit > 0 or count < 2:
            raise ValueError(f"Value bins need a limit above 0 and at least 2 bins, got {limit} and {count}.")
        end = math.log1p(limit)
        self.register_buffer("centers", torch.linspace(-end, end, count, dtype=torch.float64).float(), persistent=False)
        self.width: Final = 2 * end / (count - 1)
        self.smoothing = smoothing

    def labels(self, values: Tensor) -> Tensor:
        """``(...) -> (..., K)``: probabilities whose mean, in symlog space, is the value's."""
        place = (symlog(values) - self.centers[0]) / self.width
        place = place.clamp(0, len(self.centers) - 1)
        if self.smoothing is not None:
            return self._gaussian(place)
        # The triangle of height 1 around `place` hits its two neighbours with the two-hot weights.
        index = torch.arange(len(self.centers), device=values.device)
        return (1 - (place[..., None] - index).abs()).clamp(min=0)

    def _gaussian(self, place: Tensor) -> Tensor:
        assert self.smoothing is not None
        edges = torch.arange(len(self.centers) + 1, device=place.device) - 0.5
        cumulative = torch.special.ndtr((edges - place[..., None]) / self.smoothing)
        mass = cumulative.diff(dim=-1)
        return mass / mass.sum(dim=-1, keepdim=True)

    def values(self, logits: Tensor) -> Tensor:
        """``(..., K) -> (...)``: the mean bin, back in the space of returns."""
        with full_precision(logits):
            return symexp(logits.float().softmax(dim=-1) @ self.centers)

    def outside(self, values: Tensor) -> Tensor:
        """Which values lie beyond the last bins, bool: their labels are those of the last bins."""
        return symlog(values).abs() > self.centers[-1]


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, ``(..., K), (..., K) -> (...)`` (equation 3)."""
    return -(labels * logits.float().log_softmax(dim=-1)).sum(dim=-1)


class PopArt(nn.Module):
    """Normalizes values by running statistics of targets, one pair per discount, blind to tasks.

    It ends in an affine layer; when the statistics move, that layer moves against them, so that the values it stands
    for stay the same (van Hasselt et al. 2016).

    Args:
        discounts: How many, G.
        rate: Step of the running moments, bias-corrected.
        second_moment: Of the prior, at weight 1: keeps early deviations large.
        learned: Let the optimizer move the affine layer too.
    """

    mean: Tensor
    square: Tensor
    weight: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, discounts: int, rate: float = 5e-4, second_moment: float = 100.0, learned: bool = False) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("mean", torch.zeros(discounts))
        self.register_buffer("square", torch.full((discounts,), second_moment))
        self.register_buffer("weight", torch.zeros(()))
        for name, start in (("scale", torch.ones(discounts)), ("shift", torch.zeros(discounts))):
            if learned:
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, ``(G,)`` each."""
        deviation = (self.square - self.mean.square()).clamp(min=1e-8).sqrt().clamp(1e-4, 1e6)
        return self.mean, deviation

    @torch.no_grad()
    def update(self, targets: Tensor, weight: Tensor | None = None, add_up: AddUp | None = None) -> None:
        """Take in ``targets (N, G)``, where ``weight (N,)`` is not 0, and preserve the outputs.

        With `add_up`, those of all ranks are taken in.
        """
        old_mean, old_deviation = (value.clone() for value in self.statistics())
        finite = targets.isfinite().all()  # else the optimizer's step is left out too
        targets = torch.where(finite, targets, 0.0)
        share = 1 / len(targets) if weight is None else (weight / weight.sum())[:, None]
        mean, square = (targets * share).sum(0), (targets.square() * share).sum(0)
        if add_up is not None:
            count = targets.new_full((), len(targets)) if weight is None else weight.sum()
            count, mean, square, broken = add_up(count, mean * count, square * count, 1.0 - finite.to(mean.dtype))
            mean, square, finite = mean / count, square / count, broken == 0
        self.weight += torch.where(finite, self.rate * (1 - self.weight), 0.0)
        # 1 at first, so the prior is gone after one batch; `rate` in the end
        step = torch.where(finite, self.rate / self.weight, 0.0)
        self.mean.lerp_(mean, step)
        self.square.lerp_(square, step)
        mean, deviation = self.statistics()
        self.scale.mul_(old_deviation / deviation)
        self.shift.copy_((old_deviation * self.shift + old_mean - mean) / deviation)

    def forward(self, raw: Tensor) -> Tensor:
        """Raw critic outputs to normalized values, ``(..., G, S) -> (..., G, S)``."""
        return self.scale[:, None] * raw + self.shift[:, None]

    def normalize(self, values: Tensor) -> Tensor:
        """``(..., G, S)``, on the scale of returns, to normalized."""
        mean, deviation = self.statistics()
        return (values - mean[:, None]) / deviation[:, None]

    def denormalize(self, normalized: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        mean, deviation = self.statistics()
        return normalized * deviation[:, None] + mean[:, None]


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of ``values (N, X)`` where ``weight (N,)`` is 1 and not 0; of all without a weight."""
    if weight is None:
        return values.mean()
    return (values.mean(dim=1) * weight).sum() / weight.sum().clamp(min=1)


def random_pair(values: Tensor, by_discount: bool = False) -> Tensor:
    """Two members of an ensemble ``(E, N, G)``, drawn anew for each of the N timesteps: ``(2, N, G)``.

    Args:
        values: With E = 1 its only member is returned, ``(1, N, G)``; with E = 2 both always serve.
        by_discount: Draw anew for each discount too, with replacement: both may be the same, also with E = 2.
    """
    E, N, G = values.shape
    if E == 1:
        return values
    if by_discount:
        return values.gather(0, torch.randint(E, (2, N, G), device=values.device))
    pair = torch.rand(E, N, device=values.device).argsort(dim=0)[:2]
    return values.gather(0, pair[:, :, None].expand(2, N, G))


def filtered_imitation_loss(log_prob: Tensor, advantage: Tensor, threshold: float = 0.0) -> Tensor:
    """``-1{advantage > threshold} log pi(a)``, elementwise (equation 4, CRR with a binary filter)."""
    return -(advantage > threshold).to(log_prob.dtype) * log_prob


def expected_value_loss(probabilities: Tensor, values: Tensor) -> Tensor:
    """``-E_a~pi Q(a)`` for discrete actions: ``(..., A), (..., A) -> (...)`` (equation 2)."""
    return -(probabilities * values).sum(dim=-1)
