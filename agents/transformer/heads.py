"""Output heads: policies and a critic ensemble, for all discount factors at once.

Every discount has a policy of its own; actions are taken from the last one. The discount enters the critic as an
input, ``symlog(1 / (1 - gamma))``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import sinusoids
from .encoders.base import mlp
from .objectives import full_precision, symlog

# Log-probabilities look at actions from this far inside the edge, where the tanh's inverse is infinite.
_EDGE = 0.99
_LOG_STD = (-5.0, 2.0)


class Policy(Protocol):
    """A distribution over actions; batch shape ``(..., G)``."""

    def sample(self, count: int) -> Tensor:
        """Discrete ``(..., G, S)`` int64, continuous ``(..., G, S, A)`` (with gradients); S is `count`."""

    def log_prob(self, action: Tensor) -> Tensor:
        """``(..., G)``: of one action for each discount, or one for all of them."""


@dataclass(slots=True)
class DiscretePolicy:
    """Categorical; probabilities are kept within bounds and renormalized."""

    probabilities: Tensor  # (..., G, A)

    @staticmethod
    def from_logits(logits: Tensor, bounds: tuple[float, float]) -> DiscretePolicy:
        """From ``(..., G, A)``."""
        clipped = logits.float().softmax(dim=-1).clamp(*bounds)
        return DiscretePolicy(clipped / clipped.sum(dim=-1, keepdim=True))

    def sample(self, count: int) -> Tensor:
        """``(..., G, S)`` int64, by the inverse of the cumulative distribution."""
        cumulative = self.probabilities.detach().cumsum(dim=-1)
        u = torch.rand((*cumulative.shape[:-1], count), device=cumulative.device) * cumulative[..., -1:]
        return torch.searchsorted(cumulative, u).clamp(max=cumulative.shape[-1] - 1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Of ``(..., G)`` or ``(..., 1)``: ``(..., G)``."""
        return self.log_probs(action.expand(self.probabilities.shape[:-1])[..., None])[..., 0]

    def log_probs(self, actions: Tensor | None) -> Tensor:
        """Of ``(..., G, S)``, or of all actions: ``(..., G, S)``."""
        return (self.probabilities if actions is None else self.probabilities.gather(-1, actions)).log()


@dataclass(slots=True)
class GaussianPolicy:
    """A Gaussian squeezed through tanh into (-1, 1)."""

    mean: Tensor  # (..., G, A)
    log_std: Tensor  # (..., G, A)

    @staticmethod
    def from_parameters(parameters: Tensor) -> GaussianPolicy:
        """From ``(..., G, 2 A)``."""
        mean, raw = parameters.float().chunk(2, dim=-1)
        low, high = _LOG_STD
        return GaussianPolicy(mean, low + 0.5 * (high - low) * (torch.tanh(raw) + 1))

    def sample(self, count: int) -> Tensor:
        """``(..., G, S, A)``, reparametrized."""
        noise = torch.randn((*self.mean.shape[:-1], count, self.mean.shape[-1]), device=self.mean.device)
        return torch.tanh(self.mean[..., None, :] + self.log_std.exp()[..., None, :] * noise)

    def log_prob(self, action: Tensor) -> Tensor:
        """Of ``(..., G, A)`` or ``(..., 1, A)``: ``(..., G)``."""
        inside = action.clamp(-_EDGE, _EDGE)
        before = torch.atanh(inside)
        gaussian = -0.5 * ((before - self.mean) / self.log_std.exp()).square() - self.log_std
        squeeze = torch.log1p(-inside.square())
        return (gaussian - 0.5 * math.log(2 * math.pi) - squeeze).sum(dim=-1)


class Actor(nn.Module):
    """State features to one policy per discount.

    Args:
        width: Of the state features, D.
        hidden: MLP widths.
        discounts: How many, G.
        actions: Discrete actions or continuous dimensions, A.
        discrete: Which of the two.
        bounds: Of the probability of a discrete action.
    """

    def __init__(
        self,
        width: int,
        hidden: tuple[int, ...],
        discounts: int,
        actions: int,
        discrete: bool,
        bounds: tuple[float, float],
    ) -> None:
        super().__init__()
        self.discounts: Final = discounts
        self.discrete: Final = discrete
        self.bounds: Final = bounds
        self.mlp: Final = mlp(width, *hidden)
        self.out: Final = nn.Linear([width, *hidden][-1], discounts * actions * (1 if discrete else 2))
        # Policies are nearly uniform at first.
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, state: Tensor) -> DiscretePolicy | GaussianPolicy:
        """``(..., D)`` to a policy of batch shape ``(..., G)``."""
        hidden = self.mlp(state)
        with full_precision(state):
            return self._policy(self.out(hidden.float()).unflatten(-1, (self.discounts, -1)))

    def last(self, state: Tensor) -> DiscretePolicy | GaussianPolicy:
        """``(..., D)`` to the policy of the last discount, which acts; its batch shape is ``(...)``."""
        hidden = self.mlp(state)
        size = self.out.out_features // self.discounts
        with full_precision(state):
            return self._policy(F.linear(hidden.float(), self.out.weight[-size:], self.out.bias[-size:]))

    def _policy(self, parameters: Tensor) -> DiscretePolicy | GaussianPolicy:
        if self.discrete:
            return DiscretePolicy.from_logits(parameters, self.bounds)
        return GaussianPolicy.from_parameters(parameters)


class Baseline(nn.Module):
    """What the current timestep alone tells of its value, without the memory: bin logits for each discount.

    What is left for the critics is small and near zero, where bins are narrow, and their gradient to the memory is no
    longer that of what needs none: how much of the rollout is left, or where the cart is.

    Args:
        width: Of an embedded timestep, D.
        hidden: MLP widths.
        discounts: How many, G.
        bins: K.
    """

    def __init__(self, width: int, hidden: tuple[int, ...], discounts: int, bins: int) -> None:
        super().__init__()
        self.discounts: Final = discounts
        self.mlp: Final = mlp(2 * width, *hidden)
        self.out: Final = nn.Linear(hidden[-1], discounts * bins)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, embedded: Tensor, steps: Tensor) -> Tensor:
        """``(..., D)``, and ``(...)`` the step of each in its rollout: ``(..., G, K)``."""
        width = embedded.shape[-1]
        normed = F.layer_norm(embedded.detach(), (width,))  # it trains no encoder, which serves the memory
        hidden = self.mlp(torch.cat([normed, sinusoids(steps, width).to(normed.dtype)], dim=-1))
        with full_precision(hidden):
            return self.out(hidden.float()).unflatten(-1, (self.discounts, -1))


class CriticEnsemble(nn.Module):
    """E critics as batched matrix products.

    The first layer is linear in (state, discount, action), so each part goes through it once and the parts are
    added: the state's share is not computed again for every discount and sampled action.

    Args:
        width: Of the state features, D.
        hidden: Two MLP widths.
        discounts: The discount factors.
        actions: Discrete actions or continuous dimensions, A.
        discrete: Which of the two.
        outputs: Per value: K bin logits, or 1.
        critics: E.
        norm: Normalize the second hidden layer (LayerNorm, one for each critic).
        gates: An action also multiplies the state's share of the first layer, each unit by a factor of its own (Perez
            et al. 2018): a product of state and action is then there from the start.
    """

    discount_features: Tensor

    def __init__(
        self,
        width: int,
        hidden: tuple[int, int],
        discounts: tuple[float, ...],
        actions: int,
        discrete: bool,
        outputs: int,
        critics: int,
        norm: bool = False,
        gates: bool = False,
    ) -> None:
        super().__init__()
        self.discrete = discrete
        first, second = hidden

        # Each part of the first layer is initialized for its own inputs (He et al. 2015), of which a one-hot action
        # has one: else the critic's output would hardly depend on the action at first, and it would learn slowly.
        def he(inputs: int) -> float:
            return math.sqrt(6 / inputs)

        def matrix(rows: int, columns: int, limit: float) -> nn.Parameter:
            return nn.Parameter(torch.empty(critics, rows, columns).uniform_(-limit, limit))

        self.from_state: Final = matrix(width, first, he(width))
        self.from_discount: Final = matrix(1, first, width**-0.5)
        self.from_action: Final = matrix(actions, first, he(1 if discrete else actions))
        # Factors from -1 to 3 at first: an action turns some of the state's features over and drops others.
        self.gates: Final = matrix(actions, first, 2.0 if discrete else 2.0 * actions**-0.5) if gates else None
        self.first_bias: Final = matrix(1, first, width**-0.5)
        self.second: Final = matrix(first, second, he(first))
        self.second_bias: Final = matrix(1, second, first**-0.5)
        self.last: Final = matrix(second, outputs, 0.1 * second**-0.5)
        self.last_bias: Final = nn.Parameter(torch.zeros(critics, 1, outputs))
        if norm:
            self.norm_scale: Final = nn.Parameter(torch.ones(critics, 1, second))
            self.norm_shift: Final = nn.Parameter(torch.zeros(critics, 1, second))
        self.norm = norm
        features = symlog(1.0 / (1.0 - torch.tensor(discounts)))
        self.register_buffer("discount_features", features[:, None], persistent=False)

    def forward(self, state_ND: Tensor, action: Tensor | None) -> Tensor:
        """Values of actions.

        Args:
            state_ND: ``(N, D)``.
            action: ``(N, G, S)`` int64 if discrete, ``(N, G, S, A)`` if continuous; G may be 1 where one action
                serves every discount. With E in front, every critic judges actions of its own. None stands for all
                discrete actions, S = A.

        Returns:
            ``(E, N, G, S, outputs)``.
        """
        from_state = torch.matmul(state_ND, self.from_state)[:, :, None, None]  # (E, N, 1, 1, H)
        rest = self._without_state(action, from_state.dtype)
        if self.gates is None:
            hidden = from_state + rest
        else:
            hidden = torch.addcmul(rest, from_state, self._factors(action, self.gates, from_state.dtype))
        # In place where autograd allows: these are the largest tensors of an update.
        hidden = F.leaky_relu_(hidden)
        shape = hidden.shape[:-1]
        hidden = torch.baddbmm(self.second_bias, hidden.flatten(1, 3), self.second)
        if self.norm:
            hidden = F.layer_norm(hidden, hidden.shape[-1:]) * self.norm_scale + self.norm_shift
        hidden = F.leaky_relu_(hidden)
        with full_precision(hidden):
            return torch.baddbmm(self.last_bias, hidden.float(), self.last).view(*shape, -1)

    def _without_state(self, action: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The first layer's share of discounts and actions: ``(E, N or 1, G, S, H)``.

        Under autocast it follows the product's precision, before the big sum and not after.
        """
        from_discount = self.discount_features * self.from_discount + self.first_bias  # (E, G, H)
        if self.discrete and action is not None and action.device.type == "cpu":
            # One lookup in the table of both: a sum of large tensors less.
            return self._looked_up(action, (from_discount[:, :, None] + self.from_action[:, None]).to(dtype))
        return from_discount[:, None, :, None].to(dtype) + self._from_action(action, self.from_action, dtype)

    def _factors(self, action: Tensor | None, gates: Tensor, dtype: torch.dtype) -> Tensor:
        if self.discrete:  # whose rows are taken as they are: 1 is added to the table, which is small
            return self._from_action(action, 1 + gates, dtype)
        return 1 + self._from_action(action, gates, dtype)

    def _from_action(self, action: Tensor | None, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """The actions by a matrix ``(E, A, H)``: ``(E, N or 1, G or 1, S, H)``."""
        rows = rows.to(dtype)
        if action is None:
            return rows[:, None, None]
        if not self.discrete:
            return self._multiplied(action, rows)
        if action.device.type == "cpu":
            return self._looked_up(action, rows[:, None])
        # A GPU adds up a lookup's gradient slowly, and in no fixed order.
        one_hot = action[..., None] == torch.arange(rows.shape[1], device=action.device)
        return self._multiplied(one_hot.to(dtype), rows)

    def _looked_up(self, action: Tensor, rows: Tensor) -> Tensor:
        """One lookup in the tables ``(E, G or 1, A, H)``, laid one behind the other."""
        critics, discounts, actions, width = rows.shape
        begins = torch.arange(critics * discounts, device=action.device).view(critics, 1, discounts, 1) * actions
        return F.embedding(action + begins, rows.reshape(-1, width))

    def _multiplied(self, action: Tensor, rows: Tensor) -> Tensor:
        """One product for each critic."""
        if action.dim() == 4:
            action = action[None]
        product = torch.matmul(action.flatten(1, 3).to(rows.dtype), rows)
        return product.view(rows.shape[0], *action.shape[1:4], rows.shape[2])
