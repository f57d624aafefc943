"""Replay and unfinished rollouts of several ranks in one run's folder, and how they move between numbers of ranks.

Each rank keeps its shard of the replay in files of its own, ``replay/rank-0-of-2``; one process has ``replay``. A
checkpoint holds the tables of all shards: those of rank 0 by their own names, those of rank r behind ``rank<r>.``.

A run may go on with another number of ranks. Then its rollouts, in the order of their age, are dealt out to the new
ranks one by one, into new files, and the environments' unfinished rollouts are divided among them. A checkpoint follows
at once, and after it the old files are removed. Nothing is lost, but that of a replay filled to the brim the oldest
rollouts may have to make room, since every new shard holds whole rollouts, too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .collector import ENVIRONMENT_AXIS, UNFINISHED
from .distributed import Ranks
from .replay import Replay

Array = npt.NDArray[Any]
Part = dict[str, Array]

_RETURNS, _RANKS = "returns", "ranks"


def replay_folder(folder: Path, rank: int, count: int) -> Path:
    """Where a rank's shard of the replay is."""
    return folder / "replay" if count == 1 else folder / "replay" / f"rank-{rank}-of-{count}"


def drop_others(folder: Path, count: int) -> None:
    """Remove shards of other numbers of ranks than the newest checkpoint's."""
    replay = folder / "replay"
    if not replay.is_dir() or replay.is_symlink():
        return
    for path in list(replay.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.match("rank-*-of-*") and (count == 1 or not path.name.endswith(f"-of-{count}")):
                shutil.rmtree(path)
        elif count > 1 and path.suffix == ".bin":
            path.unlink()


# ---- in a checkpoint ----


def packed(ranks: Ranks, part: Part, returns: Sequence[Array]) -> tuple[dict[str, Any], Part]:
    """What a checkpoint holds of all ranks: entries of its state, and arrays. They are complete on rank 0.

    Args:
        ranks: Those that learn together.
        part: Replay and unfinished rollouts of this rank.
        returns: Of its latest rollouts, for the log.
    """
    if ranks.count == 1:
        return {_RETURNS: [list(map(float, value)) for value in returns]}, part
    parts = ranks.handed_in({**part, _RETURNS: np.array(returns)})
    arrays = {f"rank{rank}.{name}" if rank else name: each[name] for rank, each in enumerate(parts) for name in each}
    return {_RANKS: ranks.count, _RETURNS: []}, arrays


def unpacked(state: dict[str, Any], arrays: Part) -> list[Part]:
    """The reverse of :func:`packed`: a part for each rank that the checkpoint was written by."""
    if _RANKS not in state:
        return [{**arrays, _RETURNS: np.array(state[_RETURNS])}]
    parts: list[Part] = [{} for _ in range(state[_RANKS])]
    for name, array in arrays.items():
        prefix, dot, rest = name.partition(".")
        if dot and prefix.startswith("rank") and prefix[4:].isdecimal():
            parts[int(prefix[4:])][rest] = array
        else:
            parts[0][name] = array
    return parts


# ---- between numbers of ranks ----


def redistribute(folder: Path, parts: list[Part], replay: Replay, examples: tuple[Any, Array], ranks: Ranks) -> None:
    """Fill this rank's empty replay with its share of the rollouts of all shards.

    Args:
        folder: The run's.
        parts: Of the checkpoint.
        replay: Empty.
        examples: An observation and an action.
        ranks: Those that learn now.
    """
    count = len(parts)

    def opened(rank: int) -> Replay:
        """A shard, with what was overwritten since the checkpoint copied back."""
        _, capacity = (int(value) for value in parts[rank]["cursor"])
        shard = Replay(capacity, *examples, replay_folder(folder, rank, count))
        shard.load_state(parts[rank])
        return shard

    def restore() -> None:
        for rank in range(ranks.rank, count, ranks.count):
            shard = opened(rank)
            shard.flush()
            shard.close()

    ranks.together(restore)  # each by one rank alone; then all of them may read it
    shards = [opened(rank) for rank in range(count)]
    # By age, as a share of the shard: shards fill alike.
    order = sorted(((i + 1) / len(shard), rank, i) for rank, shard in enumerate(shards) for i in range(len(shard)))
    for _, rank, i in order[ranks.rank :: ranks.count]:
        replay.add(shards[rank].rollout(i))
    for shard in shards:
        shard.close()


def redivided(parts: list[Part], ranks: Ranks, seed: int) -> Part:
    """This rank's part of the unfinished rollouts, steps and returns of all parts; exploration draws anew.

    Args:
        parts: Of the checkpoint.
        ranks: Those that learn now.
        seed: Of this rank.
    """
    returns = np.array([row for part in parts for row in part[_RETURNS]][ranks.rank :: ranks.count])
    if UNFINISHED + "steps" not in parts[0]:  # of an earlier version, which had none
        return {_RETURNS: returns}
    steps = sum(int(part[UNFINISHED + "steps"]) for part in parts)
    own = steps // ranks.count + (ranks.rank < steps % ranks.count)
    rng = np.random.default_rng(np.random.SeedSequence([seed, steps, ranks.count]))
    found: Part = {
        UNFINISHED + "steps": np.array(own),
        UNFINISHED + "rng": np.array(json.dumps(rng.bit_generator.state)),
        _RETURNS: returns,
    }
    names = {name for part in parts for name in part if name.startswith(UNFINISHED)}
    for name in names - found.keys():
        axis = ENVIRONMENT_AXIS.get(name.removeprefix(UNFINISHED), 0)
        # A part that has no memory yet has no rollout under way.
        like = next(part[name] for part in parts if name in part)
        arrays = [part.get(name, _nothing(like, axis, part)) for part in parts]
        shape = np.max([array.shape for array in arrays], axis=0)
        whole = np.concatenate([_grown(array, shape, axis) for array in arrays], axis=axis)
        found[name] = np.array_split(whole, ranks.count, axis=axis)[ranks.rank]
    return found


def _nothing(like: Array, axis: int, part: Part) -> Array:
    shape = list(like.shape)
    shape[axis] = len(part[UNFINISHED + "length"])
    return np.zeros(shape, like.dtype)


def _grown(array: Array, shape: Array, axis: int) -> Array:
    """With zeros at the ends of all axes but the environments': the longest rollout sets the lengths of the others."""
    more = [(0, 0 if i == axis else int(shape[i]) - size) for i, size in enumerate(array.shape)]
    return np.pad(array, more)
