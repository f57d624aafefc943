"""mtbench: multi-task meta-RL environments, normalized scores and a reference agent.

Importing this package registers its environments with Gymnasium and loads nothing heavier than Gymnasium
itself; simulators, pandas, matplotlib and torch load when something needs them.

    >>> import gymnasium as gym
    >>> import mtbench
    >>> env = gym.make("MTPOPGym-v0")

``gym.make("mtbench:MTPOPGym-v0")`` imports and makes in one go, which is what spawned workers need.

    >>> run = mtbench.evaluate("MTPOPGym-v0", "random", rollouts_per_task=1)
    >>> scores = mtbench.score(run)
    >>> print(scores.table())  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mtbench.registration import Row, register, register_environments

if TYPE_CHECKING:
    from mtbench.api import compare as compare
    from mtbench.api import score as score
    from mtbench.evaluation import evaluate as evaluate
    from mtbench.policy import Policy as Policy
    from mtbench.policy import load_policy as load_policy
    from mtbench.records import Run as Run
    from mtbench.records import read_run as read_run
    from mtbench.scoring.scores import Scores as Scores
    from mtbench.suite import Split as Split
    from mtbench.suite import Suite as Suite
    from mtbench.suite import Task as Task

__version__ = "0.1.0"

# The modules of the public names; each is imported when the name is first used.
_PUBLIC = {
    "Policy": "mtbench.policy",
    "Run": "mtbench.records",
    "Scores": "mtbench.scoring.scores",
    "Split": "mtbench.suite",
    "Suite": "mtbench.suite",
    "Task": "mtbench.suite",
    "compare": "mtbench.api",
    "evaluate": "mtbench.evaluation",
    "load_policy": "mtbench.policy",
    "read_run": "mtbench.records",
    "score": "mtbench.api",
}

# In full, because type checkers do not compute it.
__all__ = [
    "Policy",
    "Row",
    "Run",
    "Scores",
    "Split",
    "Suite",
    "Task",
    "__version__",
    "compare",
    "evaluate",
    "load_policy",
    "read_run",
    "register",
    "score",
]

if not TYPE_CHECKING:  # type checkers must still find misspelt names

    def __getattr__(name: str) -> object:
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_PUBLIC[name]), name)

    def __dir__() -> list[str]:
        return sorted([*globals(), *_PUBLIC])


register_environments()
