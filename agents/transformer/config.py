"""Every setting of the agent, and the presets.

Settings are typed dataclasses; ``key=value`` overrides name them with dots (``model.width=128``). A field states its
type, its bounds and its default; each config checks itself when it is made, wherever the values come from. A preset's
header says what it costs and what to expect.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtbench.errors import UsageError, unknown_name_error
from mtbench.untrusted import shown

from ..training.settings import check, number, read_settings, updated
from .suites import PAPER_DISCOUNTS, suite_settings

Update = Literal["independent", "dependent"]

_MANY = 10**12


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes (paper Table 2)."""

    encoder: tuple[int, ...] = number((512, 200), 1, 65_536)  # MLP widths of the encoder of vectors
    channels: tuple[int, ...] = number((16, 32, 32), 1, 4096, entries=(1, 8))  # of the ResNet that encodes images
    shift: int = number(4, 0, 64)  # in training, the frames of a slice move by up to so many pixels
    width: int = number(256, 1, 16_384)  # model width D
    feedforward: int = number(1024, 1, 65_536)  # inside the feed-forward blocks
    layers: int = number(3, 1, 256)
    heads: int = number(8, 1, 1024)
    context: int = number(600, 1, 65_536)  # timesteps a rollout remembers, and the length of training slices
    dropout: float = number(0.05, 0, 1)  # on embeddings and feed-forward outputs
    head: tuple[int, int] = number((256, 256), 1, 65_536)  # MLP widths of actor and critics
    critics: int = number(4, 1, 256)  # ensemble size E
    bins: int = number(64, 2, 65_536)  # K, for the independent critic
    bin_limit: float = number(1e5, 1e-3, 1e30)  # bins span [-limit, limit] in symlog space
    hl_gauss: float | None = number(None, 1e-3, 1e3)  # None: two-hot; a number: HL-Gauss of that many bin widths
    probability_floor: float = number(1e-6, 0, 1)  # least probability of a discrete action
    probability_ceiling: float = number(1.0, 0, 1)  # greatest probability of a discrete action
    critic_norm: bool = False  # LayerNorm in the critics
    input_limit: float = number(10.0, 1e-3, 1e30)  # normalized inputs are clipped to this many standard deviations
    encoder_norm: bool = False  # LayerNorm after the encoder
    symlog_inputs: bool = False  # symlog of previous rewards and continuous actions
    # Vectors of observations once more, as symlog(this * x) / symlog(this), where 0 and 1 stay and small numbers are
    # told apart where other tasks have large ones in their place. 0: not.
    fine_inputs: float = number(0.0, 0, 1e6)
    # And once more, as the distance to the nearest whole number less the number itself, both normalized: what one task
    # measures is then told apart without the marks of 0 and 1 that others have in the same place.
    fractions: bool = False
    convolution: int = number(0, 0, 1024)  # a convolution over so many timesteps before each precedes attention
    action_gates: bool = False  # actions also multiply the state's features in the critics
    recompute: bool = False  # compute activations again in the backward pass, to save memory

    def __post_init__(self) -> None:
        check(self, "model.")
        if self.width % self.heads:
            raise UsageError(f"`model.width` must be a multiple of `model.heads`, got {self.width} and {self.heads}.")


@dataclass(frozen=True, slots=True)
class LearningConfig:
    """One update (paper Table 1 and Appendix A)."""

    actor: Update = "independent"
    critic: Update = "independent"
    # Rollouts follow the last one.
    discounts: tuple[float, ...] = number(PAPER_DISCOUNTS, 0, 1, below=True, entries=(1, 64))
    batch_size: int = number(24, 1, 10**6)  # slices
    # A batch ends with the slice that reaches so many timesteps, so that short rollouts fill it too. None: it does not.
    batch_timesteps: int | None = number(None, 1, 10**9)
    # Slices of lengths between this and the context, the shorter the more often: Replay.sample. None: all are as long.
    shortest_slice: int | None = number(None, 1, 65_536)
    recency: float = number(1.0, 1, 100)  # above 1, newer rollouts are drawn more often: Replay.sample
    balance_tasks: bool = False  # draw about as many timesteps of every task, whatever it has: Replay.sample
    # With balanced tasks, what a rollout returns at best: a task then has timesteps by how much it lacks of that.
    best_return: float | None = number(None, 1e-9, 1e9)
    rate: float = number(1e-4, 0, 10)  # of AdamW
    warmup: int = number(2000, 0, _MANY)  # updates of linear warm-up
    cooldown: int = number(0, 0, _MANY)  # updates at the end of the run in which the rate falls linearly to 0
    weight_decay: float = number(1e-4, 0, 1e3)
    clip: float = number(1.0, 1e-9, 1e9)  # gradient norm
    beta2: float = number(0.999, 0, 1, below=True)  # AdamW's memory of squared gradients
    target_rate: float = number(0.003, 0, 1)  # polyak, actor and critic heads
    ema_rate: float = number(1.0, 0, 1)  # polyak, of the weights that act; 1: the newest weights act
    critic_weight: float = number(10.0, 0, 1e9)  # lambda
    value_samples: int = number(1, 1, 10**4)  # actions per discount and critic behind a state's value
    n_step: int = number(1, 1, 65_536)  # rewards in a TD target
    # For so many updates a discount's critics count in the loss by 1 - discount: short horizons teach the trunk first.
    # A long one teaches it first how much of the rollout is left, and then what to remember is found late or never.
    horizon_warmup: int = number(0, 0, _MANY)
    # A small network tells what it can of a value from the timestep alone; the critics judge what this share of it
    # leaves. 0: there is no such network. With 1, the critics' gradient teaches the trunk nothing of what is shown.
    baseline: float = number(0.0, 0, 1)
    actor_trunk: bool = True  # whether the actor's loss, besides the critics', trains encoder and sequence model
    pairs: Literal["timestep", "discount"] = "timestep"  # whose own pair of critics makes the TD target
    # What a TD target takes of its pair; by-actor: the mean if the actor is independent, the least if it is dependent.
    target: Literal["by-actor", "mean", "least"] = "by-actor"
    shared_samples: bool = False  # whether all critics judge the same sampled actions
    exact_expectations: bool = True  # dependent updates average over all discrete actions
    least: Literal["of-expectations", "by-action"] = "of-expectations"  # what the dependent actor's minimum is of
    # So many of the likeliest discrete actions count exactly in the average that the filter compares with; samples
    # stand for the others alone.
    exact_actions: int = number(0, 0, 10**6)
    # Discrete: how much the policy also imitates those of its own actions that pass the filter, beside the replay's.
    own_actions: float = number(0.0, 0, 1e6)
    filter_threshold: float = number(0.0, -1e30, 1e30)  # least advantage that is imitated
    filter_doubt: float = number(0.0, 0, 1e6)  # standard deviations between critics, taken off the advantage first
    filter_scale: Literal["multiplied", "returns"] = "multiplied"  # the scale of the threshold
    popart_learned: bool = False  # the optimizer also moves PopArt's affine layer
    compile: bool | None = None  # torch.compile; None: where there is a GPU
    # Inside the loss only. It belongs to a suite, as `model.bin_limit` does: suites.py.
    reward_multiplier: float = number(200.0, 1e-9, 1e9)

    def __post_init__(self) -> None:
        check(self, "learning.")
        if self.baseline and self.critic == "dependent":
            raise UsageError("`learning.baseline` is for the independent critic, not for learning.critic=dependent.")
        if self.own_actions and (self.actor == "dependent" or not self.exact_actions):
            raise UsageError(
                "`learning.own_actions` is for the independent actor, which judges its own actions where "
                "`learning.exact_actions` is above 0."
            )


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """Exploration and replay."""

    num_envs: int = number(24, 1, 10**6)
    replay: int = number(6_000_000, 2, _MANY)  # capacity in timesteps; it is on disk, in the run's folder
    replay_rollouts: int | None = number(None, 1, _MANY)  # and in rollouts
    epsilon_start: float = number(1.0, 0, 10)  # random actions (discrete) or noise (continuous)
    epsilon_end: float = number(0.05, 0, 10)
    epsilon_late: tuple[float, float] = number((1.0, 1.0), 0, 10)  # factors on both, reached within a rollout ...
    epsilon_horizon: int = number(1000, 0, _MANY)  # ... after this many steps of it
    epsilon_steps: int = number(24_000_000, 0, _MANY)  # environment steps, all environments together
    epsilon_hold: float = number(0.0, 0, 1000)  # continuous: steps that a random value lasts; 0: noise of each step
    steps_per_update: float = number(24.0, 0, 1e9)  # environment steps for each update
    first_steps: int = number(24_000, 0, _MANY)  # environment steps before the first update
    refresh_updates: int = number(100, 1, _MANY)  # updates until collecting beside the learner takes newer weights

    def __post_init__(self) -> None:
        check(self, "collect.")


def remote_count(collectors: str) -> int | None:
    """How many collectors a Ray cluster is to have; None for the one in the learner's process.

    Args:
        collectors: ``"local"`` or ``"ray:N"``.

    Raises:
        UsageError: It is neither.
    """
    if collectors == "local":
        return None
    found = re.fullmatch(r"ray:([1-9]\d{0,5})", collectors)
    if found is None:
        raise UsageError(
            f"`collectors` is local or ray:N, such as ray:8 for 8 on a Ray cluster, got {shown(collectors)}."
        )
    return int(found[1])


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """All settings of a training run."""

    env_id: str = "MTPOPGym-v0"
    env: dict[str, Any] = field(default_factory=dict)  # further arguments of the environment
    seed: int = number(0, 0, 2**63 - 1)
    updates: int = number(1_000_000, 1, _MANY)
    round_updates: int = number(1000, 1, _MANY)  # updates between two looks at the clock, the log and the checkpoint
    checkpoint_rounds: int = number(10, 1, _MANY)
    keep_checkpoints: int = number(2, 1, 10**6)
    evaluate_rounds: int = number(10, 0, _MANY)  # 0: never
    evaluate_rollouts: int = number(10, 1, 10**9)  # per task
    sync: bool = False  # collect and learn in turns: exactly repeatable
    collectors: str = "local"  # local: one in this process; ray:N: N on a Ray cluster, each with collect.num_envs
    threads: int | None = number(None, 1, 4096)  # of PyTorch; None leaves them alone
    loggers: tuple[str, ...] = ()  # besides log.jsonl: "tensorboard", "wandb"
    model: ModelConfig = field(default_factory=ModelConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)

    def __post_init__(self) -> None:
        check(self, "")
        if remote_count(self.collectors) is not None and self.sync:
            raise UsageError(
                "`sync` is exactly repeatable, which collectors on a Ray cluster are not: leave out --sync, or "
                "--collectors ray:N."
            )


# Settings of earlier versions, and their values that mean what is done today: a config.json may have them.
_RETIRED: dict[str, dict[str, tuple[bool, ...]]] = {
    "collect": {"replay_on_disk": (False, True)},
    "learning": {"baseline": (False,)},  # it was a switch
    "model": {"recency": (False,), "relative": (False,)},
}


# The paper's agent for Multi-Task POPGym (Tables 1 and 2): 100M environment steps, 4M updates. Meant for a GPU; nobody
# has run it to the end with this code yet: expect what the paper reports (Figure 16), and check.
#   mtbench train MTPOPGym-v0 --preset paper --out runs/paper
_PAPER = TrainConfig(updates=4_000_000)

# A single task or a handful on one core of a laptop, in minutes; suites.py has what it changes for a suite. On POPGym:
# 6000 updates (3M environment steps, 7M transitions) in about 10 minutes, which is enough for RepeatFirstEasy,
# RepeatPreviousEasy or the cart pole, and not always for a mixture of games: results/learning.
#   mtbench train MTPOPGym-v0 --preset small --env 'tasks=["RepeatFirstEasy"]' --out runs/small
# Where it departs from the paper's settings, it is for speed of learning: one discount or two instead of seven;
# narrower bins and smoothed labels (HL-Gauss), since at K = 64 over +-1e5 a cart pole's two actions share a bin; a
# higher rate; fresher data.
_SMALL = TrainConfig(
    updates=4000,
    round_updates=200,
    checkpoint_rounds=5,
    evaluate_rounds=5,
    evaluate_rollouts=50,
    threads=1,  # the collector has the other core; more threads only wait for each other at these sizes
    model=ModelConfig(
        encoder=(128,),
        width=64,
        feedforward=128,
        layers=2,
        heads=4,
        context=128,
        dropout=0.0,
        head=(64, 64),
        critics=2,
        bins=96,
        bin_limit=1000.0,
        hl_gauss=0.75,
    ),
    learning=LearningConfig(
        discounts=(0.1, 0.9),
        batch_size=16,
        rate=3e-3,
        warmup=200,
        target_rate=0.01,
        value_samples=2,
        reward_multiplier=100.0,
    ),
    collect=CollectConfig(
        num_envs=32, replay=200_000, epsilon_steps=200_000, steps_per_update=128.0, first_steps=10_000
    ),
)

# Runs through everything on two cores in about 3 minutes; learns next to nothing of 27 tasks in that time.
#   mtbench train MTPOPGym-v0 --preset debug --out runs/debug
_DEBUG = dataclasses.replace(
    _SMALL,
    updates=1500,
    round_updates=250,
    checkpoint_rounds=2,
    evaluate_rounds=0,
    model=dataclasses.replace(_SMALL.model, encoder=(32,), width=32, feedforward=64, layers=1, heads=2, context=64),
    collect=dataclasses.replace(_SMALL.collect, num_envs=8, first_steps=2_000, steps_per_update=64.0),
)

# Two minutes on two cores. It learns RepeatFirstEasy and HigherLowerEasy in that time, nothing of MineSweeperEasy.
#   mtbench train MTPOPGym-v0 --preset quick --out runs/quick --env k=1 \
#       --env 'tasks=["RepeatFirstEasy","HigherLowerEasy","MineSweeperEasy"]'
# These games pay at once, so that one short discount sees enough, and only actions better than the policy's exact
# average are imitated: five seeds in five learnt both.
_QUICK = dataclasses.replace(
    _SMALL,
    updates=1600,
    checkpoint_rounds=4,
    evaluate_rounds=0,
    model=dataclasses.replace(_SMALL.model, context=52),
    learning=dataclasses.replace(
        _SMALL.learning, batch_size=24, cooldown=300, discounts=(0.1,), value_samples=1, exact_actions=100
    ),
)

PRESETS: dict[str, TrainConfig] = {"paper": _PAPER, "small": _SMALL, "quick": _QUICK, "debug": _DEBUG}


def preset(name: str, env_id: str | None = None) -> TrainConfig:
    """A preset by name.

    Args:
        name: One of :data:`PRESETS`.
        env_id: The environment to train on. Settings that belong to its suite take the suite's values (suites.py); a
            warning says so where the suite is unknown there. None: MTPOPGym-v0.

    Raises:
        UsageError: There is no preset or no environment of that name.
    """
    if name not in PRESETS:
        raise unknown_name_error("preset", name, list(PRESETS), "the Transformer agent")
    config: TrainConfig = updated(PRESETS[name], suite_settings(name, env_id or PRESETS[name].env_id))
    return config


def from_dict(content: Mapping[str, Any]) -> TrainConfig:
    """The config that :func:`to_dict` made this of.

    Raises:
        UsageError: A setting does not exist, has another type or is out of bounds.
    """
    if not isinstance(content, Mapping):
        raise UsageError(f"A config is a JSON object of settings, not {shown(content)}.")
    kept = dict(content)
    for part, retired in _RETIRED.items():
        if isinstance(kept.get(part), Mapping):
            kept[part] = {name: value for name, value in kept[part].items() if value not in retired.get(name, ())}
    config: TrainConfig = updated(TrainConfig(), kept)
    return config


def read_config(path: Path) -> TrainConfig:
    """The config in an untrusted file.

    Raises:
        UsageError: It is missing, a link, too large, not strict JSON, or no config; the message says which.
    """
    config: TrainConfig = read_settings(path, from_dict)
    return config
