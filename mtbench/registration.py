"""Which Gymnasium IDs there are: a table of this package's, and a way to add a suite of another package.

Every ID is a :class:`mtbench.rollout.MetaRollout`; a row says which suite it plays and what differs from the
class's defaults. The arguments are JSON-safe, as ``gymnasium.register`` wants them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium

from mtbench.errors import UsageError, unknown_name_error

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

    from mtbench.suite import Suite

_ENTRY_POINT = "mtbench.rollout:MetaRollout"


class Row(NamedTuple):
    """One Gymnasium ID.

    Attributes:
        id: The ID, with its version.
        summary: One line for ``mtbench list``.
        kwargs: Arguments of :class:`~mtbench.rollout.MetaRollout`, JSON-safe. ``suite`` is a name or, for a suite of
            another package, an import string such as ``"my_package.my_suite:SUITE"``.
    """

    id: str
    summary: str
    kwargs: dict[str, Any]

    @property
    def k(self) -> int:
        """Attempts of a rollout."""
        return int(self.kwargs.get("k", 1))

    @property
    def objective(self) -> str:
        """``"k-episode"`` or ``"k-shot"``."""
        return str(self.kwargs.get("objective", "k-episode"))

    @property
    def suite(self) -> Suite:
        """The suite it plays."""
        from mtbench.suite import load_suite

        return load_suite(self.kwargs["suite"])


_PROCGEN_EASY: dict[str, Any] = {"suite": "procgen-easy", "k": 2, "objective": "k-episode", "max_steps": 2500}
_ATARI: dict[str, Any] = {"suite": "atari", "k": 1, "objective": "k-episode"}
_META_WORLD: dict[str, Any] = {"k": 3, "objective": "k-episode"}

#: The IDs of this package. A new ID is a new row here and nothing else.
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

_summaries: dict[str, str] = {}


def register(row: Row) -> None:
    """Register an ID that plays a suite, of this package or of another.

    Then ``gymnasium.make`` and ``make_vec`` make it, and ``mtbench`` evaluates, scores and trains on it, as on the IDs
    of this package. Registering the same row twice does nothing.

    Args:
        row: The ID, a line about it, and the arguments of :class:`~mtbench.rollout.MetaRollout`.

    Raises:
        UsageError: The ID is registered with something else, or the arguments are not JSON-safe or name no suite.
    """
    if not isinstance(row.kwargs.get("suite"), str):
        raise UsageError(f'The row of {row.id} must name its suite: kwargs={{"suite": "my_package.my_suite:SUITE"}}.')
    try:
        json.dumps(row.kwargs)
    except TypeError as error:
        raise UsageError(f"The arguments of {row.id} must be JSON-safe: {error}.") from None
    known = gymnasium.registry.get(row.id)
    if known is not None:
        if not _plays_rollouts(known) or known.kwargs != row.kwargs:
            raise UsageError(f"The ID {row.id} is registered already, with other arguments. Choose another name.")
        return
    _summaries[row.id] = row.summary
    gymnasium.register(
        row.id,
        entry_point=_ENTRY_POINT,
        vector_entry_point="mtbench.vector:make_vector",
        kwargs=row.kwargs,
        # MetaRollout makes both checks itself, at a tenth of the wrappers' cost per step.
        order_enforce=False,
        disable_env_checker=True,
    )


def register_environments() -> None:
    """Register every row of :data:`TABLE`."""
    for row in TABLE:
        register(row)


def rows() -> list[Row]:
    """Every registered ID that plays meta-rollouts: this package's, then others.

    The others were given to :func:`register`, or to ``gymnasium.register`` with
    :class:`~mtbench.rollout.MetaRollout` as their entry point.
    """
    own = {row.id for row in TABLE}
    others = [spec.id for spec in gymnasium.registry.values() if spec.id not in own and _plays_rollouts(spec)]
    return [*TABLE, *map(_row, others)]


def find(env_id: str) -> Row:
    """The row of an ID.

    Args:
        env_id: A registered ID, with or without the ``mtbench:`` prefix.

    Raises:
        ValueError: No such ID; the message names the nearest one.

    Example:
        >>> find("MTPOPGym-v0").k
        2
    """
    name = env_id.removeprefix("mtbench:")
    spec = gymnasium.registry.get(name)
    if spec is None or not _plays_rollouts(spec):
        where = "mtbench; `mtbench list` shows them all, and --suite imports those of another package"
        raise unknown_name_error("environment", name, [row.id for row in rows()], where)
    return _row(name)


def _row(env_id: str) -> Row:
    return Row(env_id, _summaries.get(env_id, ""), dict(gymnasium.registry[env_id].kwargs))


def _plays_rollouts(spec: EnvSpec) -> bool:
    if isinstance(spec.entry_point, str):
        return spec.entry_point == _ENTRY_POINT
    entry = spec.entry_point
    return f"{getattr(entry, '__module__', '')}:{getattr(entry, '__qualname__', '')}" == _ENTRY_POINT
