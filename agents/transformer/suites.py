"""What the agent knows about suites: the settings that belong to an environment rather than to the agent.

The reward multiplier, the bins and the discounts decide together whether the returns of a suite fit between the bins:
with POPGym's multiplier, a solved task of ML45 (a return of 5,000) would exceed them tenfold.

The presets hold POPGym's settings, but for those that ``small`` has in :data:`SMALL`. For another suite, every preset
takes :data:`REWARDS`; the preset ``paper`` also takes :data:`PAPER`, and those for a CPU take :data:`SMALL`. A setting
that the user gives comes first. A training run's config.json holds the values it used.

Sources: Grigsby et al. 2024 (the paper), Tables 1 and 2 and Appendix A; their released agent, version 3.3.0, for what
the paper leaves open: multipliers, warm-up and exploration schedules.
"""

from __future__ import annotations

import warnings
from typing import Any

from mtbench.registration import find

PAPER_DISCOUNTS = (0.1, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999)

#: For a suite that is not listed below: the multiplier that the released agent uses unless told otherwise; bins and
#: discounts, which the paper has in common for all of its suites.
GENERAL: dict[str, Any] = {
    "learning.reward_multiplier": 10.0,
    "learning.discounts": PAPER_DISCOUNTS,
    "model.bin_limit": 1e5,
}

#: By the suite of a registered ID, or by the ID where a suite's IDs differ.
REWARDS: dict[str, dict[str, Any]] = {
    "procgen-easy": {"learning.reward_multiplier": 10.0},
    "procgen-memory-hard": {"learning.reward_multiplier": 10.0},
    "metaworld-ml45": {"learning.reward_multiplier": 1.0},
    "metaworld-ml10": {"learning.reward_multiplier": 1.0},
    "babyai": {"learning.reward_multiplier": 1000.0},
    "atari": {"learning.reward_multiplier": 0.25},
    # The published multiplier is for scores as the games pay them.
    "MTAtari-Clipped-v0": {"learning.reward_multiplier": GENERAL["learning.reward_multiplier"]},
}

_META_WORLD: dict[str, Any] = {
    "learning.rate": 5e-4,
    "learning.clip": 2.0,
    "model.encoder": (512, 256),
    "model.width": 320,
    "model.feedforward": 1280,
    "model.context": 256,
    "model.bins": 128,
    "collect.replay": 8_000_000,
    "collect.epsilon_steps": 48_000_000,  # 2 M for each of 24 environments
    "collect.epsilon_late": (0.8, 0.2),
}

#: Of the preset ``paper``: sizes and optimization (Tables 1 and 2), where they are not POPGym's.
PAPER: dict[str, dict[str, Any]] = {
    "procgen-easy": {
        "learning.weight_decay": 5e-3,
        "model.width": 512,
        "model.feedforward": 2048,
        "model.context": 128,
        "model.bins": 128,
        "collect.replay": 18_000_000,
    },
    "procgen-memory-hard": {
        "learning.batch_size": 16,
        "learning.weight_decay": 5e-3,
        "model.width": 512,
        "model.feedforward": 2048,
        "model.layers": 6,
        "model.context": 768,
        "model.channels": (20, 36, 64),
        "model.bins": 128,
        "collect.replay": 80_000_000,
    },
    "metaworld-ml45": _META_WORLD,
    "metaworld-ml10": _META_WORLD,
    "babyai": {
        "learning.weight_decay": 1e-3,
        "model.layers": 4,
        "model.context": 512,
        "model.bins": 32,
        "collect.replay": 10_000_000,
        "collect.epsilon_steps": 12_000_000,  # 0.5 M for each of 24 environments
    },
    "atari": {
        "learning.batch_size": 32,
        "learning.weight_decay": 5e-3,
        "model.context": 64,
        "model.bins": 128,
        "collect.replay": 8_000_000,
    },
}
# What one core works through: a frame costs this ResNet a quarter of the operations of the paper's.
_SMALL_IMAGES: dict[str, Any] = {
    "learning.batch_size": 16,
    "learning.discounts": (0.97,),
    "model.channels": (8, 16, 16),
    "model.context": 32,
}
_SMALL_ROBOTS: dict[str, Any] = {
    "learning.batch_size": 32,
    "learning.discounts": (0.97,),
    "model.context": 64,
}

# The same for all games. The rewards that count add up to -1 to 1 in a rollout: times 10 they fit between the bins.
_SMALL_POPGYM: dict[str, Any] = {
    "updates": 6000,
    "evaluate_rollouts": 100,
    "model.action_gates": True,
    "model.bin_limit": 12.0,
    "model.bins": 48,
    "model.convolution": 5,  # velocities are differences of positions, and a card is seen a few steps before it counts
    "model.encoder_norm": True,
    # Games have the same places for what they show: where one has cards of 0 and 1, another has angles of a hundredth.
    "model.fine_inputs": 20.0,
    # Games of short rollouts have as many timesteps in a batch as those of long ones, or they begin to be learnt late.
    "learning.balance_tasks": True,
    "learning.batch_size": 96,
    "learning.batch_timesteps": 1200,
    "learning.beta2": 0.95,
    "learning.cooldown": 2000,
    # The short horizon finds what a game has to remember; the long one balances a pole. One after the other.
    "learning.discounts": (0.1, 0.99),
    "learning.horizon_warmup": 1600,
    "learning.ema_rate": 0.02,
    "learning.exact_actions": 4,  # as many as a game of cards has of the 27
    "learning.n_step": 3,
    "learning.reward_multiplier": 10.0,
    "learning.target_rate": 0.02,
    "learning.value_samples": 1,
    "collect.epsilon_end": 0.1,
    "collect.epsilon_steps": 300_000,
    "collect.num_envs": 128,
    "collect.replay": 1_000_000,
    "collect.steps_per_update": 512.0,
}

# How long `small` trains; the shorter presets keep their own.
_LENGTH = ("updates", "learning.cooldown")

#: Of the presets for a CPU: sizes, and scales of values that tell actions apart after minutes, not days.
SMALL: dict[str, dict[str, Any]] = {
    "popgym": _SMALL_POPGYM,
    "procgen-easy": _SMALL_IMAGES,
    "procgen-memory-hard": _SMALL_IMAGES,
    "atari": _SMALL_IMAGES,
    "metaworld-ml45": _SMALL_ROBOTS,
    "metaworld-ml10": _SMALL_ROBOTS,
    # Missions take 5 to 20 steps. With a discount of 0.97 one step is worth 3 % of a value: less than its error.
    "babyai": {
        "updates": 16_000,
        "learning.batch_size": 64,
        "learning.cooldown": 6000,
        "learning.discounts": (0.9,),
        "learning.ema_rate": 0.01,
        "learning.exact_actions": 7,
        "learning.n_step": 5,
        "learning.rate": 2e-3,
        "learning.reward_multiplier": 10.0,
        "learning.value_samples": 1,
        "model.bin_limit": 12.0,
        "model.context": 32,
        "collect.epsilon_steps": 400_000,
        "collect.num_envs": 64,
    },
}
_PAPER_EVERYWHERE: dict[str, Any] = {"learning.warmup": 500}


def suite_settings(preset: str, env_id: str) -> dict[str, Any]:
    """What a preset changes for an environment, by setting; warns where the suite is unknown.

    Args:
        preset: The preset's name.
        env_id: A registered ID.

    Raises:
        UsageError: There is no such ID.
    """
    row = find(env_id)
    suite = str(row.kwargs["suite"])
    if suite == "popgym":  # which the presets are written for
        return {"env_id": row.id, **(SMALL[suite] if preset == "small" else {})}
    if suite not in REWARDS:
        warnings.warn(
            f"The reward scale of {row.id} is unknown to the agent. It takes learning.reward_multiplier="
            f"{GENERAL['learning.reward_multiplier']:g} and model.bin_limit={GENERAL['model.bin_limit']:g}; set them "
            "if returns times the multiplier exceed the limit, or are less than 1.",
            stacklevel=3,
        )
    settings = {"env_id": row.id, **GENERAL}
    for name in (suite, row.id):
        settings.update(REWARDS.get(name, {}))
    if preset == "paper":
        settings.update(_PAPER_EVERYWHERE | PAPER.get(suite, {}))
    else:
        settings.update(SMALL.get(suite, {}))
        if preset != "small":
            settings = {name: value for name, value in settings.items() if name not in _LENGTH}
    return settings
