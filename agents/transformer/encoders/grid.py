"""Grids and missions: BabyAI."""

from __future__ import annotations

from typing import Any, Final

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from ..trees import flat
from .base import Encoder, Numbers, Timesteps, is_vector, parts

# Sizes of the released agent, version 3.3.0, for words, mission, numbers and all of them together.
_WORD, _READING, _MISSION, _NUMBERS, _MERGED = 18, 96, 48, 16, 300
# What the release's grid network has inside is not published in words; these are ours.
_CELL, _GRID = 24, 128


class GridMissionEncoder(Encoder):
    """A small CNN over the grid, a GRU over the mission's words, an MLP over the rest (paper Table 2).

    Every number of a cell (object, colour, state) has an embedding of its own; a cell is their sum, as in BabyAI 1.1
    (Hui et al. 2020).
    """

    takes = "a Dict with one small uint8 grid (height, width, numbers), one MultiDiscrete mission and vectors"

    def __init__(self, space: gym.Space[Any], action_size: int, config: ModelConfig) -> None:
        super().__init__(space, action_size, config)
        spaces = parts(space)
        self.grid: str = next(name for name, part in spaces.items() if _is_grid(part))
        self.mission: str = next(name for name, part in spaces.items() if isinstance(part, gym.spaces.MultiDiscrete))
        vectors = [name for name in spaces if name not in (self.grid, self.mission)]
        grid, words = spaces[self.grid], spaces[self.mission]
        assert isinstance(grid, gym.spaces.Box)
        assert isinstance(words, gym.spaces.MultiDiscrete)
        height, width, numbers = grid.shape
        #: Whether missions that are alike are read once, which a GPU would have to wait for.
        self.reads_once = True
        self._values = int(grid.high.max()) + 1
        self.cells: Final = nn.Embedding(numbers * self._values, _CELL)
        self.convolutions: Final = nn.Sequential(
            nn.Conv2d(_CELL, _CELL, 3, padding=1), nn.ReLU(), nn.Conv2d(_CELL, _CELL, 3), nn.ReLU()
        )
        self.seen: Final = nn.Linear(_CELL * (height - 2) * (width - 2), _GRID)
        self.words: Final = nn.Embedding(int(words.nvec.max()), _WORD)
        self.reading: Final = nn.GRUCell(_WORD, _READING)  # torch.compile does not trace nn.GRU
        self.read: Final = nn.Linear(_READING, _MISSION)
        self.numbers: Final = Numbers(space, vectors, action_size, config)
        self.rest: Final = nn.Linear(self.numbers.size, _NUMBERS)
        self.merged: Final = nn.Linear(_GRID + _MISSION + _NUMBERS, _MERGED)
        self.out: Final = nn.Linear(_MERGED, config.width)

    @classmethod
    def accepts(cls, space: gym.Space[Any]) -> bool:
        """A Dict with one grid, one mission and otherwise vectors."""
        spaces = parts(space).values()
        counts = [
            sum(_is_grid(part) for part in spaces),
            sum(isinstance(part, gym.spaces.MultiDiscrete) for part in spaces),
        ]
        return counts == [1, 1] and 2 + sum(is_vector(part) for part in spaces) == len(spaces)

    def forward(self, timesteps: Timesteps) -> Tensor:
        """``(M, width)``."""
        observed = flat("observation", timesteps.observation)
        grid = observed[self.grid].long()
        grid = grid + self._values * torch.arange(grid.shape[-1], device=grid.device)
        cells = self.cells(grid).sum(dim=-2).permute(0, 3, 1, 2)
        seen = self.seen(self.convolutions(cells).flatten(1))
        merged = [seen, self._read(observed[self.mission]), self.rest(self.numbers(timesteps))]
        encoded: Tensor = self.out(F.relu(self.merged(F.relu(torch.cat(merged, dim=-1)))))
        return encoded

    def _read(self, missions: Tensor) -> Tensor:
        """``(M, words)`` to ``(M, _MISSION)``. A mission lasts for an attempt, so that most are alike."""
        if self.reads_once and missions.device.type == "cpu" and not torch.compiler.is_compiling():
            different, place = torch.unique(missions, dim=0, return_inverse=True)
            return self._read_all(different)[place]
        return self._read_all(missions)

    def _read_all(self, missions: Tensor) -> Tensor:
        words = self.words(missions.long())
        state = words.new_zeros(len(words), _READING)
        for word in words.unbind(dim=1):
            state = self.reading(word, state)
        read: Tensor = self.read(state)
        return read


def _is_grid(space: gym.Space[Any]) -> bool:
    """Whether it is a uint8 Box (height, width, numbers) of small numbers that stand for things."""
    return (
        isinstance(space, gym.spaces.Box)
        and len(space.shape) == 3
        and min(space.shape[:2]) >= 3
        and space.dtype == np.uint8
        and int(space.high.max()) < 64
    )
