"""CountRecall: how often has this face been dealt?

- Two shuffled decks: one is dealt, the other asks. The agent sees the face just dealt and the face it is asked for.
- An answer is the number of cards with that face dealt up to and including the one in sight: 1 / (cards - 1) if right,
  else minus that.
- The attempt ends with the last card.

(popgym/envs/count_recall.py; colours of 52 cards, suits of 104, ranks of 208.)
"""

from __future__ import annotations

from typing import Any

from mtbench.suites.popgym.rules.cards import deal_out
from mtbench.vector.compiled import compiled


@compiled
def start(game: Any, rules: Any, stream: Any) -> None:
    """Shuffle both decks, deal and ask."""
    for i in range(rules.distinct):
        game.counts[i] = 0
    deal_out(game.cards, 0, rules.cards, rules.distinct, stream)
    deal_out(game.cards, rules.cards, rules.cards, rules.distinct, stream)
    game.dealt = 0
    _deal(game, rules)


@compiled
def step(game: Any, rules: Any, action: int) -> tuple[float, bool, bool]:
    """Reward, terminated, truncated."""
    right = action == game.counts[game.asked]
    _deal(game, rules)
    return rules.reward if right else -rules.reward, game.dealt == rules.cards, False


@compiled
def _deal(game: Any, rules: Any) -> None:
    shown = game.cards[game.dealt]
    game.asked = game.cards[rules.cards + game.dealt]
    game.dealt += 1
    game.counts[shown] += 1
    game.hot[0] = shown
    game.hot[1] = rules.distinct + game.asked
