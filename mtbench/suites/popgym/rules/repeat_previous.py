"""RepeatPrevious: name the suit of the card dealt k cards ago (k = 1 is the one in sight).

- The agent sees the suit of the card just dealt.
- Nothing is asked until k cards are out; then 1 / (cards - k) for the right suit, else minus that.
- The attempt ends with the last card.

(popgym/envs/repeat_previous.py; 1, 2 and 3 times 52 cards, k = 4, 32 and 64.)
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
    reward = 0.0
    if game.dealt >= rules.back:
        reward = rules.reward if action == game.cards[game.dealt - rules.back] else -rules.reward
    game.hot[0] = game.cards[game.dealt]
    game.dealt += 1
    return reward, game.dealt == rules.cards, False
