"""Records for the compiled rules: the state of each slot, and the parameters of each task."""

from __future__ import annotations

import numpy as np

MOST_CARDS = 16 * 52  # RepeatFirstHard
MOST_ARMS = 20
SQUARES = 16
NOTHING = -1

#: One slot. `hot` has the indices of ones in the observation, or NOTHING; `seen` has the real numbers at the
#: observation's beginning.
GAME = np.dtype(
    [
        *(("task", "i8"), ("hot", "i4", 2), ("seen", "f4", 2), ("steps", "i4")),
        # Cards lie in the order in which they are dealt; a second deck follows the first.
        *(("dealt", "i4"), ("held", "i4"), ("asked", "i4"), ("counts", "i4", 13)),
        *(("pole", "f8", 4), ("chances", "f4", MOST_ARMS), ("grid", "i1", SQUARES), ("near", "i1", SQUARES)),
        ("cards", "u1", MOST_CARDS),
    ]
)

#: One task. `reward` is the unit of a step's reward in the rules of the task's family.
RULES = np.dtype(
    [
        *(("family", "i8"), ("cards", "i4"), ("distinct", "i4"), ("back", "i4"), ("arms", "i4")),
        *(("max_steps", "i4"), ("reward", "f8"), ("noise", "f8")),
    ]
)
