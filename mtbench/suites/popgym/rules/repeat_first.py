"""RepeatFirst: name the suit of the first card, at every step, while others go by.

- The agent sees the suit of the card just dealt, the first one at the start.
- 1 / (cards - 1) for the first card's suit, else minus that.
- The attempt ends with the last card.

(popgym/envs/repeat_first.py; decks of 1, 8 and 16 times 52 cards.)
"""

from __future__ import annotations

from typing import Any

from mtbench.suites.popgym.rules.cards import SUITS, begin
from mtbench.vector.compiled import compiled


@compiled
def start(game: Any, rules: Any, stream: Any) -> None:
    """Shuffle, show the first card."""
    begin(game, rules, SUITS, stream)


@compiled
def step(game: Any, rules: Any, action: int) -> tuple[float, bool, bool]:
    """Reward, terminated, truncated."""
    game.hot[0] = game.cards[game.dealt]
    game.dealt += 1
    right = action == game.cards[0]
    return rules.reward if right else -rules.reward, game.dealt == rules.cards, False
