"""Evaluate on all ranks: each plays some of the shards, and rank 0 keeps the records.

A shard's records do not depend on who plays it, so they are to the last bit those of one process.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from mtbench.jobs import OnRollouts, OnShard, Setup, ShardPlayer
from mtbench.playing import PlayedShard, Shard, play_shard
from mtbench.policy import Policy

from .distributed import Group, Ranks, sendable_error

T = TypeVar("T")


def evaluated_together(ranks: Ranks, policy: Policy, evaluate: Callable[[ShardPlayer | None], T]) -> T | None:
    """Carry out an evaluation, with shards that all ranks play.

    Args:
        ranks: All of them call this.
        policy: The same on every rank.
        evaluate: Called on rank 0 alone. It hands what it is given to :func:`mtbench.evaluate` as `player`.

    Returns:
        What `evaluate` returned; None on the other ranks.

    Raises:
        Exception: `evaluate`, or a rank that played, failed: the same error on all ranks.
    """
    if not isinstance(ranks, Group):
        return evaluate(None)
    if ranks.rank:
        _play_what_is_said(ranks, policy)
        return None

    def player(
        setup: Setup, policy: Policy, shards: Sequence[Shard], on_rollouts: OnRollouts, on_shard: OnShard
    ) -> None:
        # The others have the policy already.
        ranks.said((dataclasses.replace(setup, policy=None), shards))
        _play(ranks, setup, policy, shards, on_rollouts, on_shard)

    try:
        result = evaluate(player)
    except Exception as error:
        ranks.said(sendable_error(error))
        raise
    ranks.said(None)
    return result


def _play_what_is_said(ranks: Group, policy: Policy) -> None:
    """On another rank than 0: play shards until rank 0 says how the evaluation ended."""
    while (said := ranks.said()) is not None:
        if isinstance(said, Exception):
            raise said
        # Whatever fails, fails on all ranks, and rank 0 has the last word.
        with contextlib.suppress(Exception):
            _play(ranks, said[0], policy, said[1], lambda ended: None, lambda played: None)


def _play(
    ranks: Group, setup: Setup, policy: Policy, shards: Sequence[Shard], on_rollouts: OnRollouts, on_shard: OnShard
) -> None:
    """Each rank plays one shard at a time, and rank 0 keeps them before the next ones begin."""
    with contextlib.closing(ranks.together(lambda: setup.rows(policy))) as rows:

        def play_one(shard: Shard | None) -> PlayedShard | None:
            return None if shard is None else play_shard(rows, policy, shard, on_rollouts)

        def keep(played: Sequence[PlayedShard | None]) -> None:
            for one in played:
                if one is not None:
                    on_shard(one)

        for own in range(ranks.rank, ranks.rank + len(shards), ranks.count):
            shard = shards[own] if own < len(shards) else None
            played = ranks.handed_in(ranks.together(partial(play_one, shard)))
            ranks.first(partial(keep, played))
