"""Autoencode: watch a deck go by, then name its suits from the last one back.

- The agent sees the mode (1 watch, 0 play) and a suit. Watching takes as many observations as there are cards, the
  first of them from the start; the last card comes with mode 0, and from then on answers count.
- Each answer names the suit of the last card not yet named: 1 / cards if right, else -1 / cards. While answering, the
  agent always sees suit 0, whatever was dealt.
- The attempt ends with the first card's suit.

(popgym/envs/autoencode.py; decks of 1, 2 and 3 times 52 cards.)
"""

from __future__ import annotations

from typing import Any

from mtbench.suites.popgym.rules.cards import SUITS, deal_out
from mtbench.vector.compiled import compiled

_MODES = 2


@compiled
def start(game: Any, rules: Any, stream: Any) -> None:
    """Shuffle, show the first card."""
    deal_out(game.cards, 0, rules.cards, SUITS, stream)
    game.dealt = game.held = 1
    game.hot[0] = 1
    game.hot[1] = _MODES + game.cards[0]


@compiled
def step(game: Any, rules: Any, action: int) -> tuple[float, bool, bool]:
    """Reward, terminated, truncated."""
    if game.dealt < rules.cards:
        game.hot[1] = _MODES + game.cards[game.dealt]
        game.dealt += 1
        game.held += 1
        game.hot[0] = 1 if game.dealt < rules.cards else 0
        return 0.0, False, False
    game.held -= 1
    right = action == game.cards[game.held]
    game.hot[0] = 0
    game.hot[1] = _MODES
    return rules.reward if right else -rules.reward, game.held == 0, False
