"""What the games keep for every slot, and what they are told of their task."""

from __future__ import annotations

import numpy as np

MOST_CARDS = 16 * 52  # RepeatFirstHard
MOST_ARMS = 20
SQUARES = 16
NOTHING = -1

#: One slot. `hot` are the indices of ones in the observation, or NOTHING; `seen` the real numbers at its beginning.
GAME = np.dtype(
    [
        *(("task", "i8"), ("hot", "i4", 2), ("seen", "f4", 2), ("steps", "i4")),
        # Cards lie in the order in which they are dealt; a second deck follows the first.
        *(("dealt", "i4"), ("held", "i4"), ("asked", "i4"), ("counts", "i4", 13)),
        *(("pole", "f8", 4), ("chances", "f4", MOST_ARMS), ("grid", "i1", SQUARES), ("near", "i1", SQUARES)),
        ("cards", "u1", MOST_CARDS),
    ]
)

#: One task. `reward` is what a step is worth, as the rules of its family say.
RULES = np.dtype(
    [
        *(("family", "i8"), ("cards", "i4"), ("distinct", "i4"), ("back", "i4"), ("arms", "i4")),
        *(("max_steps", "i4"), ("reward", "f8"), ("noise", "f8")),
    ]
)
