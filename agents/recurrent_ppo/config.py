"""Every setting of the baseline, and its presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtbench.errors import UsageError, unknown_name_error

from ..training.settings import check, number, read_settings, updated

_MANY = 10**12


@dataclass(frozen=True, slots=True)
class PPOConfig:
    """All settings of a training run. An update is `horizon` steps in every environment, learnt from `epochs` times."""

    agent: Literal["recurrent-ppo"] = "recurrent-ppo"
    env_id: str = "MTPOPGym-v0"
    env: dict[str, Any] = field(default_factory=dict)  # further arguments of the environment
    seed: int = number(0, 0, 2**32 - 1)
    steps: int = number(12_000_000, 1, _MANY)  # environment steps, all environments together
    round_updates: int = number(10, 1, _MANY)  # updates between two lines of the log
    checkpoint_rounds: int = number(5, 1, _MANY)
    keep_checkpoints: int = number(2, 1, 10**6)
    evaluate_rounds: int = number(5, 0, _MANY)  # 0: never
    evaluate_rollouts: int = number(50, 1, 10**9)  # per task
    threads: int | None = number(1, 1, 4096)  # of PyTorch; None leaves them alone
    loggers: tuple[str, ...] = ()  # besides log.jsonl: "tensorboard", "wandb"
    num_envs: int = number(32, 1, 10**6)
    horizon: int = number(128, 2, 10**6)  # steps of each environment in an update
    epochs: int = number(4, 1, 10**4)
    batch_size: int = number(512, 2, 10**9)  # timesteps
    rate: float = number(1e-3, 0, 10)  # of Adam; falls linearly to 0
    discount: float = number(0.98, 0, 1)
    gae_lambda: float = number(0.95, 0, 1)
    clip_range: float = number(0.2, 1e-6, 10)
    entropy: float = number(0.02, 0, 1e3)  # weight of the entropy bonus
    value_weight: float = number(0.5, 0, 1e3)
    clip: float = number(0.5, 1e-9, 1e9)  # gradient norm
    normalize_rewards: bool = True  # by the running deviation of discounted returns
    lstm: int = number(64, 1, 16_384)  # size of the memory, one for the actor and one for the critic
    # For at most so many steps the untrained memory keeps things; 0: PyTorch's own initialization.
    remembers: int = number(128, 0, 10**6)
    head: tuple[int, ...] = number((64,), 1, 65_536)  # MLP widths after it

    def __post_init__(self) -> None:
        check(self, "")
        if self.batch_size > self.num_envs * self.horizon:
            raise UsageError(
                f"`batch_size` must be at most `num_envs` times `horizon`, got {self.batch_size} and "
                f"{self.num_envs} x {self.horizon}."
            )

    @property
    def update_steps(self) -> int:
        """Environment steps of an update."""
        return self.num_envs * self.horizon


# A game or a handful, some 20 minutes of one core.
#   mtbench train MTPOPGym-v0 --agent recurrent-ppo --env 'tasks=["RepeatFirstEasy"]' --out runs/ppo
_SMALL = PPOConfig()

# Runs through everything in seconds; learns next to nothing.
_DEBUG = dataclasses.replace(
    _SMALL, steps=8192, round_updates=2, evaluate_rounds=2, evaluate_rollouts=5, num_envs=8, batch_size=512, lstm=32
)

PRESETS = {"small": _SMALL, "debug": _DEBUG}


def preset(name: str) -> PPOConfig:
    """A preset by name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in PRESETS:
        raise unknown_name_error("preset", name, list(PRESETS), "recurrent-ppo")
    return PRESETS[name]


def from_dict(content: Mapping[str, Any]) -> PPOConfig:
    """The config that :func:`..training.settings.to_dict` made this of.

    Raises:
        UsageError: A setting does not exist, has another type or is out of bounds.
    """
    config: PPOConfig = updated(PPOConfig(), content)
    return config


def read_config(path: Path) -> PPOConfig:
    """The config in an untrusted file.

    Raises:
        UsageError: It is missing, a link, too large, not strict JSON, or no config; the message says which.
    """
    return read_settings(path, from_dict)
