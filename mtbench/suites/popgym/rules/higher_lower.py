"""HigherLower: will the next card rank higher (action 0) or lower (action 1) than the one in sight?

- The agent sees the rank of the card just dealt, aces low.
- 1 / cards if right, minus that if wrong, 0 if the ranks are equal.
- The attempt ends with the last card.

(popgym/envs/higher_lower.py; 1, 2 and 3 times 52 cards.)
"""

from __future__ import annotations

from typing import Any

from mtbench.suites.popgym.rules.cards import RANKS, begin
from mtbench.vector.compiled import compiled


@compiled
def start(game: Any, rules: Any, stream: Any) -> None:
    """Shuffle, show the first card."""
    begin(game, rules, RANKS, stream)


@compiled
def step(game: Any, rules: Any, action: int) -> tuple[float, bool, bool]:
    """Reward, terminated, truncated."""
    before, now = game.cards[game.dealt - 1], game.cards[game.dealt]
    game.dealt += 1
    game.hot[0] = now
    reward = 0.0
    if now != before:
        reward = rules.reward if (now > before) == (action == 0) else -rules.reward
    return reward, game.dealt == rules.cards, False
