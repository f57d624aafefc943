"""The contract tests: what every registered ID promises (docs/contract.md). pytest runs them over :data:`IDS`."""

import importlib
import json
import os
from typing import Any

from mtbench.registration import TABLE, find
from mtbench.testing import VARIABLE

WANTED: dict[str, Any] = json.loads(os.environ.get(VARIABLE, "{}"))
#: The modules to import before making these environments.
MODULES = [module for module in ("mtbench", WANTED.get("module")) if module]
for _module in MODULES:
    importlib.import_module(_module)

#: The IDs to test.
IDS = [WANTED["env_id"]] if WANTED else [row.id for row in TABLE]

_GAMES = ["breakout", "qbert", "chopper_command"]
#: By suite and split: the tasks to test on suites where most games are long.
SHORT_GAMES: dict[str, dict[str, list[str]]] = {
    "atari": {"train": _GAMES, "test": _GAMES},
    "metaworld-ml45": {"train": ["reach-v3", "hammer-v3"], "test": ["door-lock-v3", "bin-picking-v3"]},
    "metaworld-ml10": {"train": ["push-v3", "sweep-v3"], "test": ["lever-pull-v3", "sweep-into-v3"]},
}
if WANTED.get("tasks"):
    _suite = find(WANTED["env_id"]).suite
    SHORT_GAMES[_suite.name] = {
        split: WANTED["tasks"].get(split, list(_suite.split(split).tasks)) for split in ("train", "test")
    }

# The seed 0 draws Breakout: a rollout of Q*bert begins with 100 steps that are the same for all seeds.
_TWO_GAMES, _TWO_LEVELS = ["qbert", "breakout"], ["climber", "leaper"]
#: By ID and split: the tasks to test of IDs that play the rollouts of another ID and only pay otherwise. Their golden
#: traces show this for every task.
FEWER_GAMES: dict[str, dict[str, list[str]]] = {
    "MTAtari-Clipped-v0": {"train": _TWO_GAMES, "test": _TWO_GAMES},
    "MTProcgen-EasyRescaled-v0": {"train": _TWO_LEVELS, "test": _TWO_LEVELS},
}
if WANTED:
    FEWER_GAMES.clear()

#: By suite: the steps of a rollout that reach its second attempt, on suites whose attempts all last equally long.
SECOND_ATTEMPT = {"metaworld-ml45": 520, "metaworld-ml10": 520}

#: By suite: the number of steps to render on suites where rendering is slow.
SLOW_TO_DRAW = {"metaworld-ml45": 40, "metaworld-ml10": 40}
