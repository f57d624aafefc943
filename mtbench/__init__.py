"""mtbench: multi-task meta-RL environments, normalized scores and a reference agent.

Importing this package registers its environments with Gymnasium and loads nothing heavier than Gymnasium
itself; simulators, pandas, matplotlib and torch load when something needs them.

    >>> import gymnasium as gym
    >>> import mtbench
    >>> env = gym.make("MTPOPGym-v0")

``gym.make("mtbench:MTPOPGym-v0")`` imports and makes in one go, which is what spawned workers need.
"""

from mtbench.registration import Row, register, register_environments

__all__ = ["Row", "__version__", "register"]

__version__ = "0.1.0"

register_environments()
