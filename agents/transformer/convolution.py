"""A short causal convolution in front of the Transformer, and what it remembers while it acts.

What a timestep means often lies in the few before it: a speed, a card of four steps ago. Attention can find that, but
slowly: at first it looks everywhere alike, and what lies at one distance is a small part of what it sees. Here each of
the last few timesteps has a weight of its own in every dimension (as in Gu and Dao 2023).
"""

from __future__ import annotations

import copy
from typing import Any, Final

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# At the start, in half of the dimensions; the others begin as they are, so that attention can tell a single timestep
# that lies far back from those around it.
_WEIGHTS_STD = 0.5


class Recent:
    """The last embedded timesteps of every environment: a ring of `count` slots, step t in slot ``t % count``.

    Args:
        num_envs: B.
        count: Timesteps that are remembered.
        width: D.
        device: Where it lies.
    """

    def __init__(self, num_envs: int, count: int, width: int, device: torch.device) -> None:
        self.ring: Tensor = torch.zeros(num_envs, count, width, device=device)
        self.rows: Tensor = torch.arange(num_envs, device=device)

    def part(self, rows: slice) -> Recent:
        """The memory of some of the environments, in the same storage."""
        part = copy.copy(self)
        part.ring = self.ring[rows]
        part.rows = self.rows[: len(part.ring)]
        return part

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Its content, for a checkpoint: ``recent`` ``(B, count, D)`` float32."""
        return {"recent": self.ring.cpu().numpy().copy()}

    def load_state(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned."""
        self.ring.copy_(torch.from_numpy(state["recent"]))


class Convolution(nn.Module):
    """Adds to each timestep those before it, each dimension of each age with a learned weight.

    Args:
        width: D.
        count: The oldest timestep that is added is so many steps old.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count: Final = count
        weight = torch.zeros(count, width)
        weight[:, : width // 2].normal_(std=_WEIGHTS_STD)
        self.weight: Final = nn.Parameter(weight)

    def forward(self, x_BTD: Tensor, segment_BT: Tensor | None = None) -> Tensor:
        """``(B, T, D) -> (B, T, D)``; timesteps see those of their own segment, or of their row."""
        mixed = x_BTD
        for age, weight in enumerate(self.weight[: x_BTD.shape[1] - 1], 1):
            earlier = F.pad(x_BTD[:, :-age], (0, 0, age, 0))
            if segment_BT is not None:
                same = segment_BT[:, age:] == segment_BT[:, :-age]
                earlier = earlier * F.pad(same, (age, 0))[..., None]
            mixed = mixed + weight * earlier
        return mixed

    def step(self, x_BD: Tensor, steps_B: Tensor, recent: Recent) -> Tensor:
        """The next timestep of every environment, ``(B, D) -> (B, D)``, each at its own step of its rollout."""
        age = torch.arange(1, self.count + 1, device=x_BD.device)
        slot = (steps_B[:, None] - age) % self.count
        exists = age <= steps_B[:, None]
        earlier = recent.ring[recent.rows[:, None], slot] * exists[..., None]
        mixed = x_BD + (self.weight * earlier).sum(dim=1)
        recent.ring[recent.rows, steps_B % self.count] = x_BD.to(recent.ring.dtype)
        return mixed
