"""The actions of an evaluation: recorded while it plays, kept in one file, read back with care.

``actions.bin`` holds every action of every rollout, in the order of the records' rows, compressed with zlib. An action
is the smallest unsigned integer that has room for its index, or the numbers of the action space. How many a rollout has
follows from its attempts' lengths, so the file needs no index, and its size is known before it is unpacked.
"""

from __future__ import annotations

import hashlib
import inspect
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from mtbench import registration
from mtbench.errors import RecordError
from mtbench.files import write_atomically
from mtbench.rollout import MetaRollout
from mtbench.spaces import action_index
from mtbench.untrusted import read_digested

if TYPE_CHECKING:
    import pandas as pd

    from mtbench.records import Run

Array = npt.NDArray[Any]

ACTIONS = "actions.bin"
#: In a manifest: the checksum of the file, and in an evaluation's settings, whether there shall be one.
DIGEST, SAVED = "actions_sha256", "actions_saved"

# Of an environment, where neither its ID nor the evaluation says otherwise.
_DEFAULTS = {name: inspect.signature(MetaRollout).parameters[name].default for name in ("attempt_reset", "max_steps")}

# Of unpacked actions, in bytes.
_MOST = 1 << 31


def stored_dtype(space: gym.Space[Any]) -> np.dtype[Any]:
    """How an action is stored, or each of its numbers."""
    if isinstance(space, gym.spaces.Discrete):
        return np.dtype(np.min_scalar_type(int(space.n) - 1))
    assert isinstance(space, gym.spaces.Box)
    return np.dtype(space.dtype)


class Recorder:
    """Remembers the actions of rollouts under way.

    Args:
        space: Of one action.
        num_envs: Rows that play at once.
    """

    def __init__(self, space: gym.Space[Any], num_envs: int) -> None:
        self._space = space
        self._held = np.zeros((256, num_envs, *(space.shape or ())), dtype=stored_dtype(space))
        self._length = np.zeros(num_envs, dtype=np.int64)

    def add(self, actions: Any, playing: npt.NDArray[np.int64]) -> None:
        """Remember the actions that these rows have just played."""
        if np.max(self._length) == len(self._held):
            self._held = np.concatenate([self._held, np.zeros_like(self._held)])
        if isinstance(actions, np.ndarray):
            taken = actions[playing]
        elif isinstance(self._space, gym.spaces.Discrete):
            taken = np.array([action_index(actions[i], int(self._space.n)) for i in playing.tolist()])
        else:
            taken = np.array([np.asarray(actions[i]) for i in playing.tolist()])
        self._held[self._length[playing], playing] = taken
        self._length[playing] += 1

    def taken(self, row: int) -> Array:
        """The actions of a row's rollout, which is over."""
        length, self._length[row] = int(self._length[row]), 0
        actions: Array = self._held[:length, row].copy()
        return actions


def steps(episodes: pd.DataFrame, manifest: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Steps of each rollout, in the order of the rows, which has all attempts of a rollout one after the other.

    Between two attempts lies a step whose action plays nothing, unless ``attempt_reset`` is ``"same-step"``.
    """
    arguments = {**_DEFAULTS, **registration.find(manifest["env_id"]).kwargs, **manifest["env_kwargs"]}
    k = manifest["k"]
    lengths: npt.NDArray[np.int64] = episodes["length"].to_numpy(dtype=np.int64).reshape(-1, k)
    between = k - 1 if arguments["attempt_reset"] == "next-step" else 0
    whole = lengths.sum(axis=1) + between
    # Only the time limit of a rollout leaves attempts unplayed, and cuts it off.
    limit = arguments["max_steps"]
    return np.asarray(whole if limit is None else np.where(lengths[:, -1] > 0, whole, limit), dtype=np.int64)


def packed(rollouts: Sequence[Array]) -> bytes:
    """The content of the file."""
    return zlib.compress(b"".join(np.ascontiguousarray(actions).tobytes() for actions in rollouts), level=6)


def write_actions(path: Path, rollouts: Sequence[Array]) -> str:
    """Write the file, atomically.

    Args:
        path: The file.
        rollouts: By rollout, in the order of the rows.

    Returns:
        Its SHA-256 checksum.
    """
    content = packed(rollouts)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return hashlib.sha256(content).hexdigest()


def read_actions(run: Run, space: gym.Space[Any]) -> list[Array]:
    """The actions of a checked run, from its untrusted file: one array for each rollout, in the order of the rows.

    Args:
        run: Read from a folder.
        space: Of one action.

    Raises:
        RecordError: There are none, the file is not the one of the manifest, or it does not hold as many actions as the
            attempts are long.
    """
    if run.path is None or DIGEST not in run.manifest:
        raise RecordError(
            f"{run.name} has no recorded actions: evaluate with --save-actions, in a new folder, to have some."
        )
    m = run.manifest
    groups = run.episodes[["task", "rollout", "attempt"]].to_numpy().reshape(-1, m["k"], 3)
    if (groups[:, :, :2] != groups[:, :1, :2]).any() or (groups[:, :, 2] != np.arange(1, m["k"] + 1)).any():
        raise RecordError(f"{run.name}: the attempts of a rollout must follow one another, where actions are recorded.")
    return read_packed(run.path / ACTIONS, run.manifest[DIGEST], steps(run.episodes, run.manifest), space)


def read_packed(path: Path, digest: str, counts: npt.NDArray[np.int64], space: gym.Space[Any]) -> list[Array]:
    """What :func:`write_actions` wrote.

    Args:
        path: The file.
        digest: The checksum that it must have.
        counts: Steps of each rollout.
        space: Of one action.

    Raises:
        RecordError: As for :func:`read_actions`.
    """
    dtype, shape = stored_dtype(space), space.shape or ()
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    expected = int(counts.sum()) * size
    if expected > _MOST:
        raise RecordError(f"{path} would unpack to {expected:,} bytes of actions; at most {_MOST:,} are read.")
    content = read_digested(path, expected + (1 << 16), digest, RecordError)
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(content, expected + 1)
    except zlib.error as error:
        raise RecordError(f"{path} holds no packed actions: {error}.") from None
    if len(raw) != expected or not unpacker.eof or unpacker.unused_data:
        found = "more" if len(raw) > expected or unpacker.unconsumed_tail else f"{len(raw) // size:,}"
        raise RecordError(
            f"{path} should hold {expected // size:,} actions, as many as the attempts are long; it holds {found}."
        )
    ends = np.cumsum(counts)[:-1]
    return np.split(np.frombuffer(raw, dtype).reshape(-1, *shape), ends)


class Replayed:
    """Plays recorded actions: a policy for one shard, which looks at nothing.

    Args:
        rollouts: The actions of the shard's cases, in the order in which they begin.
    """

    def __init__(self, rollouts: Sequence[Array]) -> None:
        self._rollouts = rollouts

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Begin with the first case."""
        counts = np.array([len(actions) for actions in self._rollouts], dtype=np.int64)
        # One action more: what a rollout plays that outlasts its record. Its number of steps tells.
        one = np.zeros((1, *self._rollouts[0].shape[1:]), self._rollouts[0].dtype)
        self._actions = np.concatenate([part for actions in self._rollouts for part in (actions, one)])
        ends = np.cumsum(counts + 1)
        self._first, self._last = ends - counts - 1, ends - 1
        self._at: npt.NDArray[np.int64] = np.zeros(num_envs, dtype=np.int64)
        self._until: npt.NDArray[np.int64] = np.zeros(num_envs, dtype=np.int64)
        self._begun = 0

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> Array:
        """The next actions; in the order of their rows, those that begin take the next cases."""
        for row in np.flatnonzero(reset_mask).tolist():
            if self._begun < len(self._first):  # with fewer cases than rows, the last rows have none
                self._at[row], self._until[row] = self._first[self._begun], self._last[self._begun]
                self._begun += 1
        actions = self._actions[self._at]
        self._at = np.minimum(self._at + 1, self._until)
        return actions.astype(np.int64) if actions.dtype.kind == "u" else actions
