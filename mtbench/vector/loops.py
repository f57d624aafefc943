"""Compiled loops of the batched contract: they update the state of every rollout in a step."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtbench.vector import streams
from mtbench.vector.compiled import compiled, kernel
from mtbench.vector.engine import Array

# Values of PROGRESS["phase"]: they decide what the next step does.
NOT_RESET, PLAYING, BETWEEN, OVER = range(4)
# What begins at the end of a step.
GOES_ON, NEXT_ATTEMPT, NEXT_ROLLOUT = range(3)
# When the next rollout or attempt begins. With WAIT, finished rollouts ignore steps until they are reset.
NEXT_STEP, SAME_STEP, NEVER, WAIT = range(4)

_REPLACEMENT_SEEDS = 2**31


@compiled
def _draw_variant(stream: Any, first: int, count: int, listed: Array) -> int:
    """Draw one of `count` variants from `first` on, or one of `listed` if there are any."""
    drawn = streams.below(stream, count)
    return listed[drawn] if len(listed) else first + drawn


@kernel
def refused(progress: Any, actions: Array, limit: int, mode: int) -> int:
    """The index of the first environment that cannot play its action; -1 if all can."""
    for i in range(len(actions)):
        phase = progress[i].phase
        if phase == PLAYING:
            if actions[i] < 0 or actions[i] >= limit:
                return i
        elif mode != WAIT and (phase == NOT_RESET or (phase == OVER and mode == NEVER)):
            return i
    return -1


@kernel
def before(
    begin: int,
    end: int,
    progress: Any,
    replacements: Any,
    tasks: Array,
    num_actions: Array,
    actions: Array,
    played: Array,
    returns: Array,
    lengths: Array,
) -> None:
    """Write the action that each environment plays, or -1. Indices that its task does not have are replaced."""
    for i in range(begin, end):
        played[i] = -1
        one = progress[i]
        if one.phase != PLAYING:
            continue
        if one.elapsed == 0:
            returns[i] = 0.0
            lengths[i] = 0
        action, count = actions[i], num_actions[tasks[i]]
        one.valid = action < count
        if not one.valid:
            action = np.int64(streams.random(replacements[i]) * count)
        played[i] = action


@kernel
def record_success(begin: int, end: int, progress: Any, played: Array, success: Array, successes: Array) -> None:
    """Record which attempts succeeded."""
    for i in range(begin, end):
        if played[i] < 0:
            continue
        if progress[i].elapsed == 0:
            successes[i] = False
        if success[i]:
            successes[i, progress[i].attempt] = True


@kernel
def after(
    begin: int,
    end: int,
    progress: Any,
    earned: Array,
    base_terminated: Array,
    base_truncated: Array,
    tasks: Array,
    scales: Array,
    returns: Array,
    lengths: Array,
    follows: Array,
    reward: Array,
    terminated: Array,
    truncated: Array,
    rules: tuple[int, bool, int, bool, int, bool, bool],
) -> None:
    """Compute paid rewards and end flags, update the statistics, and decide what begins next."""
    k, k_shot, max_steps, single_attempt, attempt_reset, clip, renews = rules
    for i in range(begin, end):
        one = progress[i]
        reward[i], terminated[i], truncated[i], follows[i] = 0.0, False, False, GOES_ON
        if one.phase == OVER or one.phase == NOT_RESET:
            if renews:
                follows[i] = NEXT_ROLLOUT
            continue
        one.elapsed += 1
        timeout = one.elapsed == max_steps
        if one.phase == BETWEEN:
            one.valid, one.reward = True, 0.0
            follows[i] = NEXT_ATTEMPT
            truncated[i] = timeout
        else:
            one.reward = earned[i]
            returns[i, one.attempt] += earned[i]
            lengths[i, one.attempt] += 1
            last = one.attempt == k - 1
            if last or not k_shot:
                reward[i] = (max(-1.0, min(1.0, earned[i])) if clip else earned[i]) * scales[tasks[i]]
            if not (base_terminated[i] or base_truncated[i]):
                truncated[i] = timeout
            elif last:
                terminated[i] = base_terminated[i] or not single_attempt
                truncated[i] = base_truncated[i] and single_attempt
            elif timeout:
                truncated[i] = True
            elif attempt_reset == SAME_STEP:
                follows[i] = NEXT_ATTEMPT
            else:
                one.phase = BETWEEN
        if terminated[i] or truncated[i]:
            one.phase = OVER


@kernel
def begin_next(
    begin: int,
    end: int,
    progress: Any,
    random: Any,
    replacements: Any,
    follows: Array,
    tasks: Array,
    variants: Array,
    begins: Array,
    drawn_from: Array,
    first_variant: int,
    num_variants: int,
    listed: Array,
    same_variant: bool,
) -> None:
    """Begin next attempts and new rollouts; `begins` gets the variants that begin, else -1.

    Variants are drawn from the `num_variants` ones from `first_variant` on, or from `listed` if there are any.
    """
    for i in range(begin, end):
        begins[i] = -1
        if follows[i] == GOES_ON:
            continue
        one = progress[i]
        if follows[i] == NEXT_ATTEMPT:
            one.attempt += 1
        else:
            one.attempt, one.elapsed = 0, 0
            one.valid, one.reward = True, 0.0
            tasks[i] = drawn_from[streams.below(random[i], len(drawn_from))]
            for j in range(variants.shape[1]):
                if j and same_variant:
                    variants[i, j] = variants[i, 0]
                else:
                    variants[i, j] = _draw_variant(random[i], first_variant, num_variants, listed)
            # Replacements have their own stream: the actions played must not change later tasks and variants.
            streams.seed(replacements[i], streams.below(random[i], _REPLACEMENT_SEEDS))
        if one.phase != OVER or follows[i] == NEXT_ROLLOUT:
            one.phase = PLAYING
        begins[i] = variants[i, one.attempt]


@kernel
def predict_next(
    begin: int,
    end: int,
    progress: Any,
    random: Any,
    begins: Array,
    drawn_from: Array,
    first_variant: int,
    num_variants: int,
    listed: Array,
    next_tasks: Array,
    next_variants: Array,
) -> None:
    """Predict the task and first variant of the rollout after each one that begins; -1 elsewhere.

    The streams are not changed. A prediction is wrong if a reset seeds the stream or pins the task or variant.
    """
    for i in range(begin, end):
        next_variants[i] = -1
        if begins[i] < 0 or progress[i].attempt > 0:
            continue
        stream = random[i]
        high, low, spare, has_spare = stream.state_high, stream.state_low, stream.spare, stream.has_spare
        next_tasks[i] = drawn_from[streams.below(stream, len(drawn_from))]
        next_variants[i] = _draw_variant(stream, first_variant, num_variants, listed)
        stream.state_high, stream.state_low, stream.spare, stream.has_spare = high, low, spare, has_spare


@kernel
def seed_one(random: Any, i: int, number: int) -> None:
    """Seed one stream as ``np.random.default_rng(number)`` is seeded; `number` has at most 32 bits."""
    streams.seed(random[i], number)
