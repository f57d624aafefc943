"""MineSweeper: view every square of a 4 x 4 board but the two mines; the board itself is never shown.

- The agent sees how many mines lie on and around the square it just chose (0 at the start). Squares count row by row.
- A fresh square without a mine is worth 1 / 14, one viewed before -0.5 / 12, a mine -0.5 - 1 / 14. A mine ends the
  attempt, and so does the last fresh square.
- The attempt is cut off after 14 steps.

(popgym/envs/minesweeper.py, easy.)
"""

from __future__ import annotations

from typing import Any

from mtbench.suites.popgym.rules.state import SQUARES
from mtbench.vector.compiled import compiled
from mtbench.vector.streams import below

_SIDE, _MINES = 4, 2
_CLEAR, _MINE, _VIEWED = 0, 1, 2
_FREE = SQUARES - _MINES


@compiled
def start(game: Any, rules: Any, stream: Any) -> None:
    """Lay the mines."""
    for square in range(SQUARES):
        game.grid[square] = _CLEAR
        game.near[square] = 0
    # Generator.choice(16, 2, replace=False): Floyd's sample, then a shuffle of it that changes nothing here.
    for last in range(SQUARES - _MINES, SQUARES):
        square = below(stream, last + 1)
        if game.grid[square] == _MINE:
            square = last
        game.grid[square] = _MINE
        row, column = square // _SIDE, square % _SIDE
        for r in range(max(row - 1, 0), min(row + 2, _SIDE)):
            for c in range(max(column - 1, 0), min(column + 2, _SIDE)):
                game.near[_SIDE * r + c] += 1
    game.held = 0  # squares viewed
    game.hot[0] = 0


@compiled
def step(game: Any, rules: Any, action: int) -> tuple[float, bool, bool]:
    """Reward, terminated, truncated."""
    game.steps += 1
    game.hot[0] = game.near[action]
    square = game.grid[action]
    terminated = False
    if square == _MINE:
        reward = -0.5 - rules.reward
        terminated = True
    elif square == _VIEWED:
        reward = -0.5 / (_FREE - 2)
    else:
        reward = rules.reward
        game.grid[action] = _VIEWED
        game.held += 1
        terminated = game.held == _FREE
    return reward, terminated, game.steps == rules.max_steps and not terminated
