"""MultiarmedBandit: arms that pay with a hidden chance, drawn anew for each attempt.

- The agent sees whether the last arm paid (index 1) or not (index 0, also at the start).
- 1 / steps if it paid, else minus that.
- The attempt is cut off after its last step.

(popgym/envs/multiarmed_bandit.py; 10 arms and 200 steps, 20 arms and 400 steps. Chances are float32, and so is the draw
that is held against one.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtbench.vector import streams
from mtbench.vector.compiled import compiled


@compiled
def start(game: Any, rules: Any, stream: Any) -> None:
    """Draw the chances."""
    for arm in range(rules.arms):
        game.chances[arm] = streams.random_float32(stream)
    game.hot[0] = 0


@compiled
def step(game: Any, rules: Any, stream: Any, action: int) -> tuple[float, bool, bool]:
    """Reward, terminated, truncated."""
    paid = np.float32(streams.random(stream)) < game.chances[action]
    game.steps += 1
    game.hot[0] = 1 if paid else 0
    return rules.reward if paid else -rules.reward, False, game.steps == rules.max_steps
