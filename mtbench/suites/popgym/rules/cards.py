"""Decks: 52 cards each, numbered in order of rank, then suit.

A shuffled deck is dealt from its end, as upstream deals it; here it is turned over once, so that the card dealt j-th is
``cards[j]``.
"""

from __future__ import annotations

from typing import Any

from mtbench.vector.compiled import compiled
from mtbench.vector.streams import shuffle

SUITS, RANKS = 4, 13


@compiled
def face(card: int, distinct: int) -> int:
    """What a card shows where `distinct` faces are told apart: its colour (2), suit (4) or rank (13)."""
    return card % 52 // SUITS if distinct == RANKS else card % distinct


@compiled
def deal_out(cards: Any, first: int, count: int, distinct: int, stream: Any) -> None:
    """Fill ``cards[first : first + count]`` with the faces of a shuffled deck in the order they will be dealt."""
    deck = cards[first : first + count]
    for i in range(count):
        deck[i] = face(i, distinct)
    shuffle(stream, deck, count)
    for i in range(count // 2):
        deck[i], deck[count - 1 - i] = deck[count - 1 - i], deck[i]


@compiled
def begin(game: Any, rules: Any, distinct: int, stream: Any) -> None:
    """Shuffle, and show the first card."""
    deal_out(game.cards, 0, rules.cards, distinct, stream)
    game.dealt = 1
    game.hot[0] = game.cards[0]
