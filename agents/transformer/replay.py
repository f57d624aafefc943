"""Replay of whole rollouts. Sampling slices takes the same time whatever the size."""

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from mtbench.errors import UsageError

from .storage import SliceReader, UndoLog, claim_space, mapped
from .task_rollouts import TaskRollouts, drawn_by_task, newer
from .trees import leaves, named_map, tree_map

Array = npt.NDArray[Any]

_LARGE = 512  # bytes of a timestep from which slices are copied one by one


@dataclass(slots=True)
class Rollout:
    """One finished meta-rollout of T steps.

    Attributes:
        observations: A tree of ``(T + 1, ...)``: the last one follows the last action.
        actions: ``(T, ...)``.
        rewards: ``(T,)`` float32, as paid.
        terminated: Whether it ended rather than being cut off.
        task: Its hidden task's index. It decides how often the rollout is sampled, where tasks are balanced; the agent
            never sees it.
    """

    observations: Any
    actions: Array
    rewards: Array
    terminated: bool
    task: int = 0


@dataclass(slots=True)
class Batch:
    """B slices of L transitions, padded at the end.

    Attributes:
        observations: A tree of ``(B, L + 1, ...)``.
        actions: ``(B, L + 1, ...)``: the action *before* each observation comes first; zeros at a rollout's start. The
            action taken at timestep t is entry t + 1.
        rewards: ``(B, L + 1)`` float32, likewise.
        terminated: ``(B, L)`` bool: nothing follows transition t.
        mask: ``(B, L)`` bool: transition t exists.
        first_step: ``(B,)`` int64: step of the first timestep in its rollout.
    """

    observations: Any
    actions: Array
    rewards: Array
    terminated: Array
    mask: Array
    first_step: Array


class Replay:
    """A ring of timesteps that holds whole rollouts; the oldest make room for new ones.

    A rollout of T steps takes T + 1 places in a row. Rollouts are drawn, then a slice of each, so that tasks with long
    rollouts do not crowd out the others.

    Args:
        capacity: In timesteps.
        observation: An example, a tree: shapes and dtypes.
        action: Likewise.
        folder: Keep the arrays there, in files mapped into memory, for :meth:`load_state` to find; None keeps them in
            memory.
        turnover: Timesteps written between two checkpoints, about: it tells how much disk the undo log takes.
        rollouts: Hold at most this many; None lets `capacity` alone decide.

    Raises:
        DiskFullError: The disk of `folder` is too small.
    """

    def __init__(
        self,
        capacity: int,
        observation: Any,
        action: Array,
        folder: Path | None = None,
        turnover: int = 0,
        rollouts: int | None = None,
    ) -> None:
        example = {"observations": observation, "actions": action, "rewards": np.zeros((), dtype=np.float32)}
        self.capacity = capacity
        self._most = capacity if rollouts is None else rollouts
        self._bytes = sum(leaf.nbytes for tree in example.values() for leaf in leaves(tree))  # of a timestep
        self._undo = None if folder is None else UndoLog(folder / "undo.bin")
        if folder is not None:
            claim_space(folder, (capacity + min(turnover, capacity)) * self._bytes)

        def array(name: str, leaf: Array) -> Array:
            if folder is None:
                return np.zeros((capacity, *leaf.shape), dtype=leaf.dtype)
            path = folder / f"{quote(name, safe='')}.bin"
            self._maps.append(mapped(path, (capacity, *leaf.shape), leaf.dtype))
            if leaf.nbytes >= _LARGE and hasattr(os, "preadv"):
                self._readers[name] = SliceReader(path, self._maps[-1])
            return self._maps[-1].view(np.ndarray)  # indexing NumPy's class for mapped ones is slower

        self._maps: list[Any] = []
        self._readers: dict[str, SliceReader] = {}
        made = {field: named_map(array, field, tree) for field, tree in example.items()}
        self.observations: Any = made["observations"]
        self.actions: Array = made["actions"]
        self.rewards: Array = made["rewards"]
        self._all = [leaf for tree in made.values() for leaf in leaves(tree)]
        # A ring of rollouts too; none is shorter than 2 places.
        self._starts = np.zeros(capacity // 2 + 1, dtype=np.int64)
        self._lengths = np.zeros_like(self._starts)
        self._ended = np.zeros(len(self._starts), dtype=np.bool_)
        self._checksums = np.zeros(len(self._starts), dtype=np.uint32)
        self._tasks = np.zeros(len(self._starts), dtype=np.int32)
        self._of_task: dict[int, TaskRollouts] = {}
        self._oldest = self._newest = 0  # rollouts are numbered for ever; their place is the number modulo the ring
        self._guarded = 0  # the newest checkpoint refers to rollouts below this number
        self._cursor = 0

    def __len__(self) -> int:
        """Rollouts held."""
        return self._newest - self._oldest

    @property
    def timesteps(self) -> int:
        """Transitions held."""
        held = np.arange(self._oldest, self._newest) % len(self._starts)
        return int(self._lengths[held].sum())

    def add(self, rollout: Rollout) -> None:
        """Store a rollout, forgetting the oldest as needed.

        Raises:
            UsageError: It is longer than the capacity.
        """
        length = len(rollout.rewards)
        places = length + 1
        if places > self.capacity:
            raise UsageError(f"A rollout of {length} steps does not fit a replay of {self.capacity} timesteps.")
        begin = self._cursor if self._cursor + places <= self.capacity else 0
        end = begin + places
        if begin < self._cursor:  # the rest of the ring is skipped, but holds the oldest rollouts
            self._forget(self._cursor, self.capacity)
        self._forget(begin, end)
        for kept, new in zip(leaves(self.observations), leaves(rollout.observations), strict=True):
            kept[begin:end] = new
        # Shifted by one: what came before each observation.
        self.actions[begin] = 0
        self.actions[begin + 1 : end] = rollout.actions
        self.rewards[begin] = 0
        self.rewards[begin + 1 : end] = rollout.rewards
        at = self._newest % len(self._starts)
        self._starts[at], self._lengths[at], self._ended[at] = begin, length, rollout.terminated
        self._tasks[at] = rollout.task
        if self._undo is not None:
            self._checksums[at] = self._checksum(self._newest)
        self._newest += 1
        self._cursor = end
        self._list(self._newest - 1)
        while len(self) > self._most:
            self._drop_oldest()

    def rollout(self, age: int) -> Rollout:
        """A rollout held, as it was added: 0 is the oldest. Its arrays are parts of the replay's own."""
        at = (self._oldest + age) % len(self._starts)
        begin, length = int(self._starts[at]), int(self._lengths[at])
        steps = slice(begin + 1, begin + length + 1)
        return Rollout(
            observations=tree_map(lambda kept: kept[begin : steps.stop], self.observations),
            actions=self.actions[steps],
            rewards=self.rewards[steps],
            terminated=bool(self._ended[at]),
            task=int(self._tasks[at]),
        )

    def _forget(self, begin: int, end: int) -> None:
        """Drop the rollouts that overlap these places. They are the oldest, since places are filled in order."""
        while self._oldest < self._newest:
            at = self._oldest % len(self._starts)
            start = self._starts[at]
            if start >= end or start + self._lengths[at] + 1 <= begin:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        if self._undo is not None and self._oldest < self._guarded:
            self._undo.keep(self._arrays(self._oldest))
        at = self._oldest % len(self._starts)
        self._of_task[int(self._tasks[at])].drop_first(int(self._lengths[at]))
        self._oldest += 1

    def _list(self, number: int) -> None:
        """List a rollout, newer than all others, under its task."""
        at = number % len(self._starts)
        begin, length = int(self._starts[at]), int(self._lengths[at])
        total = float(self.rewards[begin + 1 : begin + length + 1].sum())
        self._of_task.setdefault(int(self._tasks[at]), TaskRollouts()).add(number, length, total)

    def sample(
        self,
        size: int,
        length: int,
        rng: np.random.Generator,
        recency: float = 1.0,
        by_task: bool = False,
        best_return: float | None = None,
        shortest: int | None = None,
        timesteps: int | None = None,
    ) -> Batch:
        """`size` slices of up to `length` transitions.

        Args:
            size: How many.
            length: At most.
            rng: Draws them.
            recency: With x uniform in [0, 1), the rollout is drawn that a share ``x ** recency`` of all are newer than.
                1 draws all alike; 2 draws the newer half 71 % of the time.
            by_task: Draw a task first, then one of its rollouts; the shorter its rollouts are, the more often, so that
                all tasks have about as many timesteps in all.
            best_return: With `by_task`, what a rollout returns at best: a task then has timesteps by how much the
                newest rollouts of it lack of that, so that what is learnt already makes room for what is not. Above 0.
            shortest: Draw the length of each slice between this and `length`, the shorter the more often: whatever n
                is, slices of n to 2n timesteps have as many of them in all. None: all have `length`.
            timesteps: The batch ends with the slice that reaches so many transitions, if that is not the last.

        Raises:
            UsageError: There is no rollout yet.
        """
        if not len(self):
            raise UsageError("The replay is empty: collect a rollout before sampling.")
        chosen = self._drawn(size, length, rng, recency, by_task, best_return) % len(self._starts)
        lengths = self._lengths[chosen]
        wanted: Any = length
        if shortest is not None and shortest < length:
            inverse = 1 / shortest - rng.random(size) * (1 / shortest - 1 / (length + 1))
            wanted = np.minimum(np.floor(1 / inverse), length).astype(np.int64)
        # A slice may lie over an edge of its rollout, and is then moved into it. Drawn within, one slice in a hundred
        # would show how a long rollout ends.
        first = np.clip(rng.integers(1 - wanted, lengths), 0, np.maximum(lengths - wanted, 0))
        count = np.minimum(lengths - first, wanted)
        if timesteps is not None:
            enough = int(np.searchsorted(count.cumsum(), timesteps)) + 1
            chosen, lengths, first, count = (column[:enough] for column in (chosen, lengths, first, count))
        longest = int(count.max())
        slices = partial(self._slices, begin=self._starts[chosen] + first, count=count)
        steps = np.arange(longest)
        last = steps == (count - 1)[:, None]
        return Batch(
            observations=named_map(slices, "observations", self.observations),
            actions=slices("actions", self.actions),
            rewards=slices("rewards", self.rewards),
            terminated=last & (self._ended[chosen] & (first + count == lengths))[:, None],
            mask=steps < count[:, None],
            first_step=first.astype(np.int64),
        )

    def _slices(self, name: str, kept: Array, begin: Array, count: Array) -> Array:
        """Rows of an array from each of `begin` on: ``(B, longest + 1, ...)``; padding repeats the last timestep."""
        longest = int(count.max())
        if kept[0].nbytes < _LARGE:
            return np.asarray(kept[begin[:, None] + np.minimum(np.arange(longest + 1), count[:, None])])
        found = np.empty((len(begin), longest + 1, *kept.shape[1:]), dtype=kept.dtype)
        places = [(found[i, : count[i] + 1], int(begin[i])) for i in range(len(begin))]
        if name in self._readers:
            self._readers[name].read_into(places)
        else:
            for into, first in places:
                into[:] = kept[first : first + len(into)]
        for i in np.flatnonzero(count < longest):
            found[i, count[i] + 1 :] = found[i, count[i]]
        return found

    def _drawn(
        self, size: int, length: int, rng: np.random.Generator, recency: float, by_task: bool, best: float | None
    ) -> Array:
        """Numbers of rollouts, for slices of up to `length`."""
        if not by_task:
            if recency == 1.0:
                return rng.integers(self._oldest, self._newest, size=size)
            return self._newest - 1 - newer(rng, recency, np.full(size, len(self)))
        return drawn_by_task(list(self._of_task.values()), size, length, rng, recency, best)

    # ---- checkpoints ----

    def state(self) -> dict[str, Array]:
        """What a checkpoint holds of the replay: which rollouts lie where, and their checksums.

        The rollouts themselves stay in the replay's files, which are flushed to disk. Call :meth:`guard` when the
        checkpoint is written.
        """
        self.flush()
        held = np.arange(self._oldest, self._newest) % len(self._starts)
        return {
            "cursor": np.array([self._cursor, self.capacity], dtype=np.int64),
            "starts": self._starts[held],
            "lengths": self._lengths[held],
            "ended": self._ended[held],
            "checksums": self._checksums[held],
            "tasks": self._tasks[held],
        }

    def flush(self) -> None:
        """Write to disk what the files hold."""
        for one in self._maps:
            one.flush()

    def guard(self) -> None:
        """Keep all rollouts held now, in the undo log once they are overwritten, until this is called again.

        A checkpoint with the present :meth:`state` can then be resumed from whatever is added after it.
        """
        if self._undo is not None:
            self._undo.begin(_key(self.state()))
            self._guarded = self._newest

    def close(self) -> None:
        """Close the undo log and what reads slices; the arrays close when nothing refers to them."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        if self._undo is not None:
            self._undo.close()

    def load_state(self, state: dict[str, Array]) -> None:
        """Bring back the replay of a checkpoint from the files and the undo log.

        Rollouts that are not whole, of damaged files say, are left out with a warning.

        Raises:
            UsageError: It is from a replay of another capacity, or of a version that kept its replay otherwise.
        """
        missing = {"cursor", "starts", "lengths", "ended", "checksums"} - set(state)
        if missing:
            raise UsageError(
                f"The checkpoint's replay lacks {', '.join(sorted(missing))}: an earlier version of mtbench wrote it. "
                "Begin a new run; this one's agents can still be evaluated."
            )
        cursor, capacity = (int(v) for v in state["cursor"])
        starts, lengths = state["starts"], state["lengths"]
        count = len(starts)
        if capacity != self.capacity or not 0 <= cursor <= capacity or count > len(self._starts):
            raise UsageError("The saved replay has another capacity than this run.")
        if count and (starts.min() < 0 or lengths.min() < 1 or (starts + lengths + 1).max() > capacity):
            raise UsageError("The saved replay holds rollouts beyond its capacity.")
        tables: tuple[Array, ...] = (self._starts, self._lengths, self._ended, self._checksums, self._tasks)
        # Checkpoints of an earlier version have no tasks.
        tasks = state.get("tasks", np.zeros(count, dtype=np.int32))
        saved = (starts, lengths, state["ended"], state["checksums"], tasks)
        for table, values in zip(tables, saved, strict=True):
            table[:count] = values
        self._oldest, self._newest, self._cursor = 0, count, cursor
        whole = self._restored(_key(state))
        if not whole.all():
            warnings.warn(
                f"The replay's files are damaged or not of this checkpoint: {count - whole.sum()} of {count} rollouts "
                "are left out.",
                stacklevel=2,
            )
            for table in tables:
                table[: whole.sum()] = table[:count][whole]
            self._newest = int(whole.sum())
        self._of_task = {}
        for number in range(self._newest):
            self._list(number)
        self.guard()

    def _restored(self, key: bytes) -> Array:
        """Copy back what the undo log has; returns which rollouts are whole."""
        assert self._undo is not None
        with ThreadPoolExecutor() as pool:  # checksums of a large replay take minutes
            whole = np.array(list(pool.map(self._is_whole, range(self._newest))), dtype=np.bool_)
        sizes = ((self._lengths[: self._newest] + 1) * self._bytes).tolist()
        for number, place in enumerate(self._undo.read(key, sizes)):
            if not whole[number]:
                content = memoryview(self._undo.record(place))
                for array in self._arrays(number):
                    array[:] = np.frombuffer(content[: array.nbytes], dtype=array.dtype).reshape(array.shape)
                    content = content[array.nbytes :]
                whole[number] = self._is_whole(number)
        return whole

    def _arrays(self, number: int) -> list[Array]:
        """A rollout's part of each array."""
        at = number % len(self._starts)
        begin = int(self._starts[at])
        return [array[begin : begin + int(self._lengths[at]) + 1] for array in self._all]

    def _checksum(self, number: int) -> int:
        checksum = 0
        for array in self._arrays(number):
            checksum = zlib.crc32(array.data, checksum)
        return checksum

    def _is_whole(self, number: int) -> bool:
        return self._checksum(number) == int(self._checksums[number % len(self._starts)])


def _key(state: dict[str, Array]) -> bytes:
    """Names a replay's content, 32 bytes."""
    digest = hashlib.sha256()
    for name in ("starts", "lengths", "ended", "checksums"):
        digest.update(np.ascontiguousarray(state[name]).tobytes())
    return digest.digest()
