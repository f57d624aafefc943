"""Batches of slices on their way to the learner: packed into rows, and copied to its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .replay import Batch
from .trees import flat, tree_map

Array = npt.NDArray[Any]

# Rows are packed if that saves at least this share of them.
_WORTH_PACKING = 0.1
# Where shapes are compiled, the number of rows is rounded up to a multiple of a share of the batch, so that there are
# at most this many shapes.
_MOST_SHAPES = 8


class Slices(NamedTuple):
    """Slices in R rows of W timesteps, and N transitions of them, as tensors on one device.

    Attributes:
        observations: A tree of ``(M, ...)``. Entry t of `actions` and `rewards` is what came before observation t.
        actions: ``(R, W, ...)``.
        rewards: ``(R, W)`` float32.
        steps: ``(R, W)`` int64: the step of each timestep in its rollout.
        segment: ``(R, W)`` int64: the slice of each timestep, and -1 where there is none. None if no row has more than
            one slice; a row's slice is then at its beginning.
        there: ``(M,)`` int64: where each observation's timestep lies, in R times W; only those that exist are listed.
            None: M is R times W, and all places are listed in order.
        exists: ``(M,)`` bool: where there is a timestep.
        sequence: ``(M,)`` int64: the slice of each.
        row: ``(N,)`` int64: the row of each transition.
        place: ``(N,)`` int64: its timestep there.
        ahead: ``(N,)`` int64: how many timesteps later its target looks at a value: n, or fewer before the slice's end.
        terminated: ``(N,)`` bool: nothing follows these.
        weight: ``(N,)`` float32: 1, or 0 for a place that has no transition: the losses are weighted means. None where
            every place has one.
    """

    observations: Any
    actions: Tensor
    rewards: Tensor
    steps: Tensor
    segment: Tensor | None
    there: Tensor | None
    exists: Tensor
    sequence: Tensor
    row: Tensor
    place: Tensor
    ahead: Tensor
    terminated: Tensor
    weight: Tensor | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that was sent to the device.

    Attributes:
        slices: There.
        tokens: Its transitions; with several ranks, those of all parts of the batch.
        fault: What is wrong with the data, if anything.
        share: Of the transitions, those that are in `slices`.
    """

    slices: Slices
    tokens: int
    fault: str | None
    share: float = 1.0


def prepare(batch: Batch, device: torch.device, fixed_length: int | None = None, n_step: int = 1) -> Prepared:
    """Pack a batch and copy it to the device, without waiting for the copies.

    Args:
        batch: From the replay.
        device: Where.
        fixed_length: Make shapes that repeat, for slices of at most this many transitions: rows have this length, and
            every place of a row counts as a transition, with weight 0 where there is none. None gives exact shapes.
        n_step: Rewards in a target.
    """
    floats = {**flat("observations", batch.observations), "rewards": batch.rewards}
    bad = [name for name, a in floats.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
    counts = batch.mask.sum(axis=1)
    layout = _layout(counts, fixed_length)
    rows, width = layout.source.shape
    exists = layout.source >= 0
    # Only what exists is encoded; shapes that repeat have every place, of which packing leaves few empty.
    there = None if fixed_length is not None or exists.all() else np.flatnonzero(exists)
    listed = layout.source.ravel() if there is None else layout.source.ravel()[there]
    slice_of, place_of = layout.source // batch.rewards.shape[1], layout.source % batch.rewards.shape[1]

    whole = layout.is_batch and exists.all()

    def packed(array: Array) -> Array:
        return array if layout.is_batch else _taken(array, layout.source)

    def observed(array: Array) -> Array:
        return array.reshape(-1, *array.shape[2:]) if whole else _taken(array, listed)

    if fixed_length is None:
        # In the batch's order. Found on the host: a mask on a GPU would have to wait for its number of True entries.
        of_slice, at = np.nonzero(batch.mask)
        row, place = layout.row[of_slice], layout.begin[of_slice] + at
        real = np.ones(len(row), dtype=np.bool_)
    else:
        row, place = np.divmod(np.arange(rows * (width - 1)), width - 1)
        of_slice, at = slice_of[row, place], place_of[row, place]
        real = exists[row, place] & (at < counts[of_slice])
    ahead = np.where(real, np.minimum(n_step, counts[of_slice] - at), 1)
    terminated = real & batch.terminated[of_slice, np.minimum(at + ahead, batch.terminated.shape[1]) - 1]

    def tensor(array: Array) -> Tensor:
        host = torch.from_numpy(np.ascontiguousarray(array))
        return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host

    slices = Slices(
        observations=tree_map(lambda array: tensor(observed(array)), batch.observations),
        actions=tensor(packed(batch.actions)),
        rewards=tensor(packed(batch.rewards)),
        steps=tensor(np.where(exists, batch.first_step[slice_of] + place_of, 0)),
        segment=tensor(np.where(exists, slice_of, -1)) if layout.shared else None,
        there=None if there is None else tensor(there),
        exists=tensor(listed >= 0),
        sequence=tensor(np.maximum(listed, 0) // batch.rewards.shape[1]),
        row=tensor(row),
        place=tensor(place),
        ahead=tensor(ahead),
        terminated=tensor(terminated),
        weight=None if fixed_length is None else tensor(real.astype(np.float32)),
    )
    return Prepared(slices, int(counts.sum()), f"The replay's {bad[0]} are not finite" if bad else None)


def _taken(array: Array, source: Array) -> Array:
    """The timesteps ``(B, L + 1, ...)`` at these indices into all of them, and 0 where an index is -1."""
    taken = array.reshape(-1, *array.shape[2:])[np.maximum(source, 0)]
    taken[source < 0] = 0
    return taken


class _Layout(NamedTuple):
    """Where slices lie.

    Attributes:
        row: ``(B,)``: the row of each slice.
        begin: ``(B,)``: its first place there.
        source: ``(R, W)``: index into the batch's timesteps, flattened; -1 for none.
        shared: Whether some row has several slices.
        is_batch: Whether the batch has this layout already.
    """

    row: Array
    begin: Array
    source: Array
    shared: bool
    is_batch: bool


def _layout(counts: Array, fixed_length: int | None) -> _Layout:
    """Lay slices of ``counts + 1`` timesteps into rows."""
    B, longest = len(counts), int(counts.max())
    width = (fixed_length or longest) + 1
    row, begin = _first_fit(counts + 1, width)
    rows = int(row.max()) + 1
    if fixed_length is not None:
        step = -(-B // _MOST_SHAPES)
        rows = min(-(-rows // step) * step, B)
    shared = rows <= (1 - _WORTH_PACKING) * B
    if not shared:
        row, begin, rows = np.arange(B), np.zeros(B, dtype=np.int64), B
    source = np.full((rows, width), -1, dtype=np.int64)
    for i in range(B):
        source[row[i], begin[i] : begin[i] + counts[i] + 1] = i * (longest + 1) + np.arange(counts[i] + 1)
    return _Layout(row, begin, source, shared, is_batch=not shared and width == longest + 1)


def _first_fit(sizes: Array, width: int) -> tuple[Array, Array]:
    """First-fit decreasing: the row and the first place of each size."""
    row, begin = np.zeros(len(sizes), dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
    used = np.zeros(len(sizes), dtype=np.int64)
    for i in np.argsort(-sizes, kind="stable"):
        row[i] = np.argmax(used + sizes[i] <= width)
        begin[i] = used[row[i]]
        used[row[i]] += sizes[i]
    return row, begin
