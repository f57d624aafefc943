"""The one table of Gymnasium IDs. A new ID is a new row here and nothing else.

Every ID is a :class:`mtbench.rollout.MetaRollout`; a row says which suite it plays and what differs from the
class's defaults. The arguments are JSON-safe, as ``gymnasium.register`` wants them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium


class Row(NamedTuple):
    """One Gymnasium ID.

    Attributes:
        id: The ID, with its version.
        summary: One line for ``mtbench list``.
        kwargs: Arguments of :class:`~mtbench.rollout.MetaRollout`; ``suite`` names a room of ``mtbench.suites``.
    """

    id: str
    summary: str
    kwargs: dict[str, Any]


_PROCGEN_EASY: dict[str, Any] = {"suite": "procgen-easy", "k": 2, "objective": "k-episode", "max_steps": 2500}
_ATARI: dict[str, Any] = {"suite": "atari", "k": 1, "objective": "k-episode"}
_META_WORLD: dict[str, Any] = {"k": 3, "objective": "k-episode"}

TABLE: tuple[Row, ...] = (
    Row(
        "MTPOPGym-v0",
        "27 partially observable games",
        {"suite": "popgym", "k": 2, "objective": "k-shot"},
    ),
    Row("MTProcgen-Easy-v0", "five video games, easy levels", _PROCGEN_EASY),
    Row(
        "MTProcgen-EasyRescaled-v0",
        "the same, unequal reward scales",
        {**_PROCGEN_EASY, "reward_scales": {"coinrun": 100.0, "climber": 0.1}},
    ),
    Row(
        "MTProcgen-MemoryHard-v0",
        "games with large or hard levels",
        {"suite": "procgen-memory-hard", "k": 2, "objective": "k-episode", "max_steps": 5000},
    ),
    Row("MTBabyAI-v0", "instructions in grid worlds", {"suite": "babyai", "k": 2, "objective": "k-episode"}),
    Row("ML45-v0", "robot skills with hidden goals", {**_META_WORLD, "suite": "metaworld-ml45"}),
    Row("ML10-v0", "fewer of the same skills", {**_META_WORLD, "suite": "metaworld-ml10"}),
    Row("MTAtari-v0", "ten Atari games", _ATARI),
    Row("MTAtari-Clipped-v0", "the same with clipped rewards", {**_ATARI, "clip_rewards": True}),
)


def register_environments() -> None:
    """Register every row of :data:`TABLE` that is not registered yet."""
    for row in TABLE:
        if row.id not in gymnasium.registry:
            gymnasium.register(
                row.id,
                entry_point="mtbench.rollout:MetaRollout",
                vector_entry_point="mtbench.vector:make_vector",
                kwargs=row.kwargs,
                # MetaRollout makes both checks itself, at a tenth of the wrappers' cost per step.
                order_enforce=False,
                disable_env_checker=True,
            )


def find(env_id: str) -> Row:
    """The row of an ID.

    Args:
        env_id: A registered ID, with or without the ``mtbench:`` prefix.

    Raises:
        ValueError: No such ID; the message names the nearest one.
    """
    from mtbench.errors import unknown

    name = env_id.removeprefix("mtbench:")
    for row in TABLE:
        if row.id == name:
            return row
    raise unknown("environment", name, [row.id for row in TABLE], "mtbench; `mtbench list` shows them all")
