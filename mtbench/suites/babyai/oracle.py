"""The expert for BabyAI: it sees the whole grid and plans an attempt before it plays it.

Minigrid's own ``BabyAIBot`` cannot play every task: in version 3.2.0 it raises on KeyInBox, and plans for ever on
UnlockToUnlock and on some layouts of Unlock and GoToImpUnlock. This planner plays all tasks. It takes the cheapest path
to the objects of the mission. If a locked door is on the path, it fetches the key first; if an object is on the path,
it moves the object elsewhere. It fails on layouts that cannot be solved: upstream locks some keys into rooms that only
these keys open, in 2 % of Unlock's layouts and 3 % of GoToImpUnlock's. The planner plays on a copy of the world, so a
plan is at most as long as an attempt.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from mtbench.suites.babyai.layouts import (
    AFTER,
    ALONE,
    BOX,
    DO_NOTHING,
    DOOR,
    DROP,
    FORWARD,
    GO_TO,
    KEY,
    LEFT,
    LOCKED,
    NOTHING,
    OBJECTS,
    OPEN,
    OPEN_IT,
    PICK_UP,
    PICKUP,
    PUT_NEXT,
    RIGHT,
    TO_X,
    TO_Y,
    TOGGLE,
    WALL,
    World,
)
from mtbench.suites.babyai.rules import play_one

if TYPE_CHECKING:
    from mtbench.rollout import MetaRollout

Cell = tuple[int, int]
State = tuple[int, int, int]  # x, y, direction

_WAYS = tuple(zip(TO_X, TO_Y, strict=True))
_TO_FETCH_A_KEY = 40  # estimated cost in steps


class _Penalties(NamedTuple):
    """Costs, in steps, of actions that a plan should avoid."""

    to_move_an_object: float
    to_drop_near_a_door: float
    to_drop_in_the_way: float


# The planner tries these in turn until a plan succeeds.
_PENALTIES = (_Penalties(10, 15, 60), _Penalties(10, 4, 10), _Penalties(25, 2, 20), _Penalties(4, 40, 60))

_plans: WeakKeyDictionary[Any, list[int]] = WeakKeyDictionary()


def action(env: MetaRollout) -> int:
    """The expert's action in the current state."""
    if not env.playing:
        return DO_NOTHING
    base: Any = env.base
    played, plan = base.played, _plans.get(base, [])
    if not played or len(played) >= len(plan) or plan[: len(played)] != played:
        found = plan_from(base.world)
        # Without a plan, none will be found later either: doing nothing leaves the world as it is.
        plan = _plans[base] = [*played, *(found or [DO_NOTHING] * int(base.world["max_steps"][0])), DO_NOTHING]
    return plan[len(played)]


def plan_from(world: World) -> list[int]:
    """Actions that lead to success, if the planner finds any.

    Args:
        world: ``(1,)`` of :data:`~mtbench.suites.babyai.layouts.WORLD`; it is not changed.
    """
    for penalties in _PENALTIES:
        planner = _Planner(world, penalties)
        with suppress(_Over, _Stuck, RecursionError):
            planner.follow_the_mission()
        if planner.succeeded:
            break
    return planner.actions


class _Over(Exception):
    """The attempt has ended."""


class _Stuck(Exception):
    """The planner finds no path."""


class _Planner:
    """Plays on a copy of a world and records its actions."""

    def __init__(self, world: World, penalties: _Penalties) -> None:
        self._penalties, self.succeeded = penalties, False
        self._worlds = world.copy()
        self.world: Any = self._worlds[0]
        self.actions: list[int] = []
        self._closed: set[Cell] = set()  # cells that are being cleared or opened: paths avoid them until that is done
        self._hopeless: set[Cell] = set()  # doors whose keys cannot be reached

    def follow_the_mission(self) -> None:
        """Do the mission's clauses in the order in which they must be done."""
        for clause in (1, 0) if self.world["joined"] == AFTER else (0, 1):
            if clause == 0 or self.world["joined"] != ALONE:
                self._follow(clause)

    def _follow(self, clause: int) -> None:
        world = self.world
        kind = world["clause"][clause]
        moved = [thing for thing in range(OBJECTS) if int(world["moved"][clause]) >> thing & 1]
        if kind == GO_TO:
            self._go(self._places(clause))
        elif kind == OPEN_IT:
            self._open([cell for thing in moved if (cell := self._cell_of(thing))], again=True)
        elif kind == PICK_UP:
            self._get(moved)
        while kind == PUT_NEXT:  # repeat until success: a drop in the attempt's first step does not count
            self._get(moved)
            beside = {cell for place in self._places(clause) for cell in _beside(place)}
            beside -= {cell for cell in beside if self._at(cell) == WALL or self._is_door(cell)}
            free = {cell for cell in beside if self._at(cell) == NOTHING}
            if free:
                self._go(free)
                self._act(DROP)
            elif beside:
                self._clear(min(beside), beside)
            else:
                raise _Stuck

    # ---- the state of the world ----

    def _at(self, cell: Cell) -> int:
        return int(self.world["cells"][cell])

    def _here(self) -> State:
        return int(self.world["x"]), int(self.world["y"]), int(self.world["facing"])

    def _places(self, clause: int) -> list[Cell]:
        return [(int(x), int(y)) for x, y in zip(*np.nonzero(self.world["places"][clause]), strict=True)]

    def _cell_of(self, thing: int) -> Cell | None:
        """The cell of an object, or of the box that contains it."""
        for wanted in (thing, *np.flatnonzero(self.world["contains"] == thing).tolist()):
            found = np.argwhere(self.world["cells"] == wanted)
            if len(found):
                return int(found[0][0]), int(found[0][1])
        return None

    def _is_door(self, cell: Cell, *states: int) -> bool:
        thing = self._at(cell)
        return bool(self.world["kind"][thing] == DOOR) and (not states or int(self.world["state"][thing]) in states)

    def _opens(self, thing: int, door: Cell) -> bool:
        world = self.world
        return bool(world["kind"][thing] == KEY and world["color"][thing] == world["color"][self._at(door)])

    # ---- actions ----

    def _act(self, action: int) -> None:
        reward, terminated, truncated = play_one(self._worlds, action)
        self.actions.append(action)
        self.succeeded = reward > 0
        if terminated or truncated:
            raise _Over

    def _go(self, targets: Iterable[Cell]) -> None:
        """Walk until one of the targets is ahead."""
        targets = set(targets)
        while (way := self._way(targets)) is not None:
            for step, ahead in way:
                blocked = step == FORWARD and not self._is_free(ahead)
                if blocked and not self._unblock(ahead, {cell for _, cell in way}):
                    break  # moving things may have changed the state: search a new path
                self._act(step)
            else:
                return
        raise _Stuck

    def _unblock(self, ahead: Cell, way: set[Cell]) -> bool:
        """Open or clear the cell ahead. Returns whether the agent, still here, can now enter it."""
        if self._is_door(ahead, LOCKED):
            here = self._here()
            try:
                self._open([ahead])
            except _Stuck:
                self._hopeless.add(ahead)
            return self._here() == here and self._is_free(ahead)
        if self._is_door(ahead) or self._strict(PICK_UP):  # a box disappears when it is toggled
            self._act(TOGGLE)
            return self._is_free(ahead)
        self._clear(ahead, way)
        return False

    def _open(self, doors: list[Cell], again: bool = False) -> None:
        """Open one of some doors. `again` toggles twice: missions count only the act of opening, not an open door."""
        locked = [door for door in doors if self._is_door(door, LOCKED)]
        if len(locked) < len(doors):
            self._go(set(doors) - set(locked))
        else:
            door = locked[0]
            if not self._opens(int(self.world["carrying"]), door):
                with self._closing(door):
                    self._get([thing for thing in range(OBJECTS) if self._opens(thing, door)])
            self._go([door])
        self._act(TOGGLE)
        if again:
            self._act(TOGGLE)

    def _get(self, things: list[int]) -> None:
        """Pick up one of some objects."""
        while int(self.world["carrying"]) not in things:
            cells = {cell for thing in things if (cell := self._cell_of(thing))}
            if self.world["carrying"] != NOTHING:
                self._put_away({cell for _, cell in self._way(cells) or ()} | cells)
            self._go(cells)
            if self.world["carrying"] != NOTHING:
                continue  # a door on the path was locked, and the agent still carries its key
            if self._at(self._ahead(self._here())) not in things:
                self._act(TOGGLE)  # open the box that contains it
            self._act(PICKUP)

    def _clear(self, cell: Cell, way: set[Cell]) -> None:
        """Move the object in a cell elsewhere, then pick up again the object that was carried."""
        held = int(self.world["carrying"])
        with self._closing(cell):
            if held != NOTHING:
                self._put_away(way)
            self._go([cell])
            if self.world["carrying"] == NOTHING:
                self._act(PICKUP)
            self._put_away(way)
        if held != NOTHING:
            self._get([held])

    def _put_away(self, way: set[Cell]) -> None:
        """Drop the carried object where it is least in the way."""
        best: tuple[float, State] | None = None
        costs, before = self._search(None, walking=True)
        for state, cost in costs.items():
            ahead = self._ahead(state)
            if self._at(ahead) != NOTHING:
                continue
            cost += self._penalties.to_drop_near_a_door * sum(self._is_door(cell) for cell in _beside(ahead))
            cost += self._penalties.to_drop_in_the_way * (ahead in way)
            if best is None or (cost, state) < best:
                best = cost, state
        if best is None:
            raise _Stuck
        for step, _ in self._steps_to(best[1], before):
            self._act(step)
        self._act(DROP)

    @contextmanager
    def _closing(self, cell: Cell) -> Iterator[None]:
        if cell in self._closed:
            raise _Stuck
        self._closed.add(cell)
        try:
            yield
        finally:
            self._closed.discard(cell)

    # ---- paths ----

    def _is_free(self, cell: Cell) -> bool:
        return self._at(cell) == NOTHING or self._is_door(cell, OPEN)

    def _cost(self, cell: Cell, walking: bool) -> float | None:
        """The cost of entering a cell; None if the agent cannot enter it."""
        if cell in self._hopeless or (cell in self._closed and not self._is_free(cell)):
            return None
        thing = self._at(cell)
        if thing == WALL or (walking and not self._is_free(cell)):
            return None
        if self._is_free(cell):
            return 1
        if self._is_door(cell, LOCKED):
            return 2 if self._opens(int(self.world["carrying"]), cell) else _TO_FETCH_A_KEY
        if self._is_door(cell):
            return None if self._strict(OPEN_IT) else 2
        if self._strict(PICK_UP):
            return 2 if self.world["kind"][thing] == BOX else None
        return self._penalties.to_move_an_object * (1 if self.world["carrying"] == NOTHING else 2)

    def _strict(self, kind: int) -> bool:
        """Whether the mission fails if the agent opens (OPEN_IT) or picks up (PICK_UP) anything else."""
        return bool(np.any(self.world["strict"].astype(bool) & (self.world["clause"] == kind)))

    def _way(self, targets: set[Cell]) -> list[tuple[int, Cell]] | None:
        """Steps to the cheapest state that faces a target, each with the cell ahead of it; None if there is none."""
        costs, before = self._search(targets, walking=False)
        facing = {state for state in costs if self._ahead(state) in targets}
        return self._steps_to(min(facing, key=lambda state: (costs[state], state)), before) if facing else None

    @staticmethod
    def _ahead(state: State) -> Cell:
        x, y, facing = state
        return x + _WAYS[facing][0], y + _WAYS[facing][1]

    def _search(self, targets: set[Cell] | None, walking: bool) -> tuple[dict[State, float], dict[State, Any]]:
        """Dijkstra's algorithm up to the first state that faces a target: the costs of states, and the step to each."""
        costs: dict[State, float] = {}
        before: dict[State, Any] = {}
        entering: dict[Cell, float | None] = {}
        waiting: list[tuple[float, State, Any]] = [(0, self._here(), None)]
        while waiting:
            cost, state, how = heapq.heappop(waiting)
            if state in costs:
                continue
            costs[state], before[state] = cost, how
            ahead = self._ahead(state)
            if targets and ahead in targets:
                break
            x, y, facing = state
            for step, way in ((LEFT, facing - 1), (RIGHT, facing + 1)):
                heapq.heappush(waiting, (cost + 1, (x, y, way % 4), (step, state)))
            if ahead not in entering:
                entering[ahead] = self._cost(ahead, walking)
            entered = entering[ahead]
            if entered is not None:
                heapq.heappush(waiting, (cost + entered, (*ahead, facing), (FORWARD, state)))
        return costs, before

    def _steps_to(self, state: State, before: dict[State, Any]) -> list[tuple[int, Cell]]:
        steps: list[tuple[int, Cell]] = []
        while before[state] is not None:
            step, state = before[state]
            steps.append((step, self._ahead(state)))
        return steps[::-1]


def _beside(cell: Cell) -> list[Cell]:
    return [(cell[0] + x, cell[1] + y) for x, y in _WAYS]
