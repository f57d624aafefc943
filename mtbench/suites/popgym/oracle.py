"""One expert per POPGym family. Each reads the game's Markov state and plays the best action for it.

What can be expected, on the games' own scale: 1.0 wherever the state decides the answer (Autoencode,
RepeatPrevious, RepeatFirst, CountRecall, MineSweeper, and the cart poles, which a linear controller never drops).
MultiarmedBandit's state is the payout probabilities, not the payouts: 2 E[max of n uniforms] - 1 = (n - 1) / (n + 1).
HigherLower's state is the cards seen, so its best player counts cards and wins a little over half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mtbench.rollout import MetaRollout


def _autoencode(base: Any) -> int:
    """Recite the hand from the latest card back. Before PLAY begins any action does."""
    return int(base.deck.suits_idx[base.deck["system"][-1]])


def _repeat_previous(base: Any) -> int:
    """The suit of the k-th latest card; any action while the hand is shorter."""
    hand = base.deck["player"]
    return int(base.deck.suits_idx[hand[-base.k]]) if len(hand) >= base.k else 0


def _repeat_first(base: Any) -> int:
    """The suit of the first card."""
    return int(base.card)


def _count_recall(base: Any) -> int:
    """How often the queried card has been dealt."""
    return int(base.counts[base.query])


def _cart_pole(base: Any) -> int:
    """Push towards the side the pole falls to: a linear law on (x, x', theta, theta')."""
    position, velocity, angle, spin = base.state
    return int(0.1 * position + 0.3 * velocity + 5.0 * angle + spin > 0)


def _multiarmed_bandit(base: Any) -> int:
    """The arm most likely to pay."""
    return int(np.argmax(base.bandits))


def _higher_lower(base: Any) -> int:
    """Bet on the side with more unseen cards (0 is higher): optimal, as every unseen card is equally likely."""
    rank = int(base.deck.show("player", ["ranks_idx"]).item())
    unseen = 4 * base.num_decks - base.state.astype(np.int64)
    return int(unseen[rank + 1 :].sum() < unseen[:rank].sum())


def _mine_sweeper(base: Any) -> tuple[int, int]:
    """The first clear square."""
    row, column = np.unravel_index(int(np.argmax(base.hidden_grid == 0)), base.hidden_grid.shape)
    return int(row), int(column)


_EXPERTS: dict[str, Callable[[Any], Any]] = {
    "Autoencode": _autoencode,
    "RepeatPrevious": _repeat_previous,
    "RepeatFirst": _repeat_first,
    "CountRecall": _count_recall,
    "PositionOnlyCartPole": _cart_pole,
    "VelocityOnlyCartpole": _cart_pole,
    "NoisyPositionOnlyCartPole": _cart_pole,
    "MultiarmedBandit": _multiarmed_bandit,
    "HigherLower": _higher_lower,
    "MineSweeper": _mine_sweeper,
}


def action(env: MetaRollout) -> int:
    """The expert's index in the shared action space for the current state of `env`."""
    if not env.playing:
        return 0  # ignored, and the finished game's state need not make sense
    expert = _EXPERTS[env.suite.tasks[env.task].family]
    return env.index_of(expert(env.base))
