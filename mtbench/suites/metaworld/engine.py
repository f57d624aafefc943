"""Batched Meta-World: worker processes that each play a share of the slots, in shared memory.

Threads would not run in parallel: most of a step is Python code, which holds the GIL, between short calls of MuJoCo.
"""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mtbench.suite import Suite
from mtbench.suites.metaworld import MOST_STEPS
from mtbench.suites.metaworld.game import SkillGame
from mtbench.vector.engine import Array, Engine, shares
from mtbench.vector.forks import finalize_unless_forked
from mtbench.vector.helpers import WAITS, Helper, HelperGone, Memory, answer, map_memory, retried

#: One slot in shared memory. The slot's player reads `skill` to `action`: it begins an attempt at the goal if `begins`,
#: and plays `action` if `moves`. It writes the result into the other fields.
SLOT = np.dtype(
    [
        ("skill", "i4"),
        ("goal", "i4"),
        ("begins", "?"),
        ("moves", "?"),
        ("action", "f4", (4,)),
        ("observation", "f4", (39,)),
        ("reward", "f8"),
        ("over", "?"),
        ("success", "?"),
    ]
)
Slots = npt.NDArray[np.void]
# By slot, the actions of the current attempt: a new process replays them to restore the slot.
Record = dict[int, npt.NDArray[np.float32]]


class Player:
    """Plays some slots, one after the other.

    Args:
        skills: Names of the skills that `SLOT` numbers.
        slots: The slots to play.
    """

    def __init__(self, skills: list[str], slots: Slots) -> None:
        self._skills, self._slots = skills, slots
        self._games: dict[int, SkillGame] = {}

    def play(self, record: Record) -> None:
        """Begin an attempt in the slots with `begins`, and play a step in those with `moves`.

        Args:
            record: Actions to replay first, when this player takes over attempts of another process.
        """
        for i, actions in record.items():
            game = self._begin(i)
            for action in actions:
                game.step(action)
        for i in np.flatnonzero(self._slots["begins"]).tolist():
            self._slots["observation"][i] = self._begin(i).observation
        moves = np.flatnonzero(self._slots["moves"])
        # Step the slots of one skill together: they share a model, which then stays in the CPU's caches.
        for i in moves[np.argsort(self._slots["skill"][moves])].tolist():
            slot = self._slots[i]
            observation, reward, _, over, info = self._games[i].step(slot["action"])
            slot["observation"], slot["reward"], slot["over"] = observation, reward, over
            slot["success"] = bool(info["success"])

    def _begin(self, i: int) -> SkillGame:
        slot = self._slots[i]
        skill = self._skills[slot["skill"]]
        if i not in self._games or self._games[i].skill != skill:
            self._games[i] = SkillGame(skill)
        self._games[i].reset(seed=int(slot["goal"]))
        return self._games[i]


class MetaWorldEngine(Engine):
    """A batch of :class:`~mtbench.suites.metaworld.game.SkillGame`.

    With one worker, this process plays all slots. A worker process that is killed is replaced, and the new one replays
    the current attempts.
    """

    envs_per_worker: ClassVar[int] = 2
    spreads: ClassVar[bool] = True

    def __init__(self, suite: Suite, num_envs: int, k: int) -> None:
        self._skills = list(suite.tasks)
        self.num_actions: Array = np.ones(len(self._skills), dtype=np.int64)
        self.success: Array = np.zeros(num_envs, dtype=np.bool_)
        self._steps = np.zeros(num_envs, dtype=np.int64)  # of the current attempt
        self._taken = np.zeros((num_envs, MOST_STEPS, 4), dtype=np.float32)
        self._playing = np.zeros(num_envs, dtype=np.bool_)
        self._share(np.zeros(num_envs, SLOT))

    def _share(self, slots: Slots) -> None:
        self._memory = Memory(slots.nbytes)
        self._slots: Slots = map_memory(self._memory.key, SLOT)
        self._slots[:] = slots
        self._player: Player | None = None  # in this process
        self._helpers: dict[tuple[int, int], Helper] = {}  # by the begin and end of their slots
        self.forget: weakref.finalize[..., Any] = finalize_unless_forked(self, _forget, self._memory, self._helpers)

    def start(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """Begin attempts. An attempt at the slot's previous goal starts from a saved state."""
        begins = variants[begin:end] >= 0
        if not begins.any():
            return
        slots = self._slots[begin:end]
        slots["skill"][begins], slots["goal"][begins] = tasks[begin:end][begins], variants[begin:end][begins]
        slots["begins"], slots["moves"] = begins, False
        self._play()
        self._steps[begin:end][begins] = 0
        self._playing[begin:end] |= begins

    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """One step in every slot that moves."""
        moves = ~np.isnan(actions[begin:end, 0])
        if not moves.any():
            return
        slots = self._slots[begin:end]
        slots["begins"], slots["moves"], slots["action"] = False, moves, actions[begin:end]
        self._play()
        at = begin + np.flatnonzero(moves)
        self._taken[at, self._steps[at]] = actions[at]
        self._steps[at] += 1
        reward[at], self.success[at] = self._slots["reward"][at], self._slots["success"][at]
        terminated[at], truncated[at] = False, self._slots["over"][at]

    def observe(self, begin: int, end: int, progress: Array, out: Array) -> None:
        """Write observations in the layout of :mod:`mtbench.suites.metaworld`."""
        steps = self._steps[begin:end]
        out[begin:end, :39] = self._slots["observation"][begin:end]
        out[begin:end, 39], out[begin:end, 40] = steps == 0, steps / MOST_STEPS

    def close(self) -> None:
        """End the worker processes."""
        self.forget()

    def _play(self) -> None:
        n = len(self._slots)
        if self.workers == 1:
            record: Record = {}
            if self._player is None:
                self._player, record = Player(self._skills, self._slots), self._record(0, n)
            self._player.play(record)
            return
        try:
            errors = self._ask(shares(n, self.workers))
        except BaseException:  # usually an interrupt: pending answers would be taken for answers to the next request
            _end(self._helpers)
            raise
        if errors:
            raise errors[0]

    def _ask(self, parts: list[tuple[int, int]]) -> list[Exception]:
        """Let all processes play in parallel; replace those that were killed and let the new ones play."""
        gone = [part for part in parts if not self._sent(part)]
        errors = []
        for part in parts:
            if part in gone:
                continue
            try:
                self._helpers[part].receive()
            except HelperGone:
                gone.append(part)
            except Exception as error:
                errors.append(error)
        for part in gone:
            try:
                retried(lambda part=part: self._replaced(part))  # type: ignore[misc]
            except HelperGone as error:
                raise RuntimeError(
                    f"A process that plays Meta-World was killed {len(WAITS)} times in a row. Is there enough memory? "
                    "Each needs 20 MB for every skill that it has played, and some for every environment."
                ) from error
        return errors

    def _replaced(self, part: tuple[int, int]) -> None:
        """Replace a share's process and let the new one play."""
        if part in self._helpers:
            self._helpers.pop(part).close(kill=True)
        self._sent(part)
        self._helpers[part].receive()

    def _sent(self, part: tuple[int, int]) -> bool:
        request: Any = {}
        if part not in self._helpers:
            self._helpers[part] = Helper(__name__, self._memory.passed)
            request = self._skills, self._memory.key, *part, self._record(*part)
        try:
            self._helpers[part].send(request)
        except HelperGone:
            return False
        return True

    def _record(self, begin: int, end: int) -> Record:
        """The actions of the current attempts, without those of attempts that begin now."""
        under_way = self._playing[begin:end] & ~self._slots["begins"][begin:end]
        return {i: self._taken[begin + i, : self._steps[begin + i]] for i in np.flatnonzero(under_way).tolist()}

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_skills", "num_actions", "workers", "success", "_steps", "_taken", "_playing")
        return {**{name: self.__dict__[name] for name in kept}, "slots": np.array(self._slots)}

    def __setstate__(self, content: dict[str, Any]) -> None:
        slots = content.pop("slots")
        self.__dict__.update(content)
        self._share(slots)


def _forget(memory: Memory, helpers: dict[tuple[int, int], Helper]) -> None:
    _end(helpers)
    memory.close()


def _end(helpers: dict[tuple[int, int], Helper]) -> None:
    for helper in helpers.values():
        helper.close(kill=True)
    helpers.clear()


class _Helper:
    """Answers requests in a worker process. The first request also has the process's skills and slots."""

    def __init__(self) -> None:
        self._player: Player | None = None

    def __call__(self, request: Any) -> None:
        if self._player is None:
            skills, memory, begin, end, request = request
            self._player = Player(skills, map_memory(memory, SLOT)[begin:end])
        self._player.play(request)


if __name__ == "__main__":
    answer(_Helper())
