"""The rules of BabyAI, compiled: MiniGrid's, to the last bit.

Moving, carrying, doors and boxes (``minigrid_env.py``, ``core/world_object.py``), what the agent sees
(``core/grid.py``) and when a mission is done (``envs/babyai/core/verifier.py``), including that objects a mission
speaks of keep their place for it until something is dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtbench.suites.babyai.layouts import (
    AFTER,
    ALONE,
    BALL,
    BEFORE,
    BOX,
    CLOSED,
    DOOR,
    DROP,
    FORWARD,
    GO_TO,
    KEY,
    LEFT,
    LOCKED,
    NOTHING,
    OPEN,
    OPEN_IT,
    PICK_UP,
    PICKUP,
    RIGHT,
    SIZE,
    TO_X,
    TO_Y,
    TOGGLE,
    VIEW,
    WALL,
    World,
)
from mtbench.vector.compiled import compiled, kernel

# How far a clause is.
_GOES_ON, _DONE, _FAILED = range(3)


@compiled
def _among(bits: Any, thing: int) -> bool:
    return ((bits >> np.uint64(thing)) & np.uint64(1)) != np.uint64(0)  # type: ignore[no-any-return]


@compiled
def _ahead(world: Any) -> tuple[int, int]:
    """The cell in front of the agent."""
    return world.x + TO_X[world.facing], world.y + TO_Y[world.facing]


@compiled
def _opaque(world: Any, thing: int) -> bool:
    return thing == WALL or (world.kind[thing] == DOOR and world.state[thing] != OPEN)


@compiled
def _toggle(world: Any, x: int, y: int) -> None:
    thing = world.cells[x, y]
    if world.kind[thing] == BOX:
        world.cells[x, y] = world.contains[thing]
    elif world.kind[thing] == DOOR:
        if world.state[thing] == LOCKED:
            held = world.carrying
            if held != NOTHING and world.kind[held] == KEY and world.color[held] == world.color[thing]:
                world.state[thing] = OPEN
        else:
            world.state[thing] = CLOSED if world.state[thing] == OPEN else OPEN


@compiled
def _act(world: Any, action: int) -> None:
    x, y = _ahead(world)
    thing = world.cells[x, y]
    kind = world.kind[thing]
    if action == LEFT:
        world.facing = (world.facing + 3) % 4
    elif action == RIGHT:
        world.facing = (world.facing + 1) % 4
    elif action == FORWARD:
        if thing == NOTHING or (kind == DOOR and world.state[thing] == OPEN):
            world.x, world.y = x, y
    elif action == PICKUP:
        if kind in (KEY, BALL, BOX) and world.carrying == NOTHING:
            world.carrying = thing
            world.cells[x, y] = NOTHING
    elif action == DROP:
        if thing == NOTHING and world.carrying != NOTHING:
            world.cells[x, y] = world.carrying
            world.carrying = NOTHING
    elif action == TOGGLE:
        _toggle(world, x, y)


@compiled
def _look_again(world: Any) -> None:
    """Where the objects are that the mission speaks of."""
    for x in range(world.width):
        for y in range(world.height):
            thing = world.cells[x, y]
            for clause in range(2):
                if thing == WALL:
                    continue
                world.places[clause, x, y] = thing != NOTHING and _among(world.tracked[clause], thing)


@compiled
def _next_to_a_place(world: Any, clause: int, x: int, y: int) -> bool:
    places = world.places[clause]
    if x > 0 and places[x - 1, y]:
        return True
    if y > 0 and places[x, y - 1]:
        return True
    return (x + 1 < SIZE and places[x + 1, y]) or (y + 1 < SIZE and places[x, y + 1])


@compiled
def _clause(world: Any, clause: int, action: int) -> int:
    """How far a clause is, after an action."""
    kind, strict, moved = world.clause[clause], world.strict[clause], world.moved[clause]
    x, y = _ahead(world)
    ahead = world.cells[x, y]
    if kind == GO_TO:
        return _DONE if world.places[clause, x, y] else _GOES_ON
    if kind == OPEN_IT:
        if action != TOGGLE or world.kind[ahead] != DOOR:
            return _GOES_ON
        if _among(moved, ahead) and world.state[ahead] == OPEN:
            return _DONE
        return _FAILED if strict else _GOES_ON
    carried, carrying = world.carried[clause], world.carrying
    world.carried[clause] = carrying
    if kind == PICK_UP:
        if action != PICKUP or carrying == NOTHING:
            return _GOES_ON
        if carried == NOTHING and _among(moved, carrying):
            return _DONE
        return _FAILED if strict else _GOES_ON
    if strict and action == PICKUP and carrying != NOTHING:
        return _FAILED
    dropped = action == DROP and carried != NOTHING and carrying == NOTHING and _among(moved, carried)
    return _DONE if dropped and _next_to_a_place(world, clause, x, y) else _GOES_ON


@compiled
def _in_turn(world: Any, first: int, second: int, action: int) -> int:
    """How far two clauses are of which one comes first."""
    if world.done[first] != _DONE:
        world.done[first] = _clause(world, first, action)
        if world.done[first] == _FAILED:
            return _FAILED
        if world.done[first] != _DONE:
            too_soon = world.joined_strict and _clause(world, second, action) == _DONE
            return _FAILED if too_soon else _GOES_ON
    status = _clause(world, second, action)
    world.done[second] = status
    return status


@compiled
def _mission(world: Any, action: int) -> int:
    if world.joined == ALONE:
        return _clause(world, 0, action)
    if world.joined == BEFORE:
        return _in_turn(world, 0, 1, action)
    if world.joined == AFTER:
        return _in_turn(world, 1, 0, action)
    for clause in range(2):
        if world.done[clause] != _DONE:
            world.done[clause] = _clause(world, clause, action)
    return _DONE if world.done[0] == _DONE and world.done[1] == _DONE else _GOES_ON


@compiled
def _spread(seen: Any, opaque: Any, i: int, j: int, to: int) -> None:
    """Light goes from a cell of the view on to its neighbour beside, and to those before both."""
    if seen[i, j] and not opaque[i, j]:
        seen[to, j] = True
        if j > 0:
            seen[to, j - 1] = True
            seen[i, j - 1] = True


@compiled
def _see(world: Any) -> None:
    fx, fy = TO_X[world.facing], TO_Y[world.facing]
    things = np.empty((VIEW, VIEW), np.uint8)
    opaque = np.empty((VIEW, VIEW), np.bool_)
    seen = np.zeros((VIEW, VIEW), np.bool_)
    for i in range(VIEW):
        for j in range(VIEW):
            ahead, right = VIEW - 1 - j, i - VIEW // 2
            x, y = world.x + fx * ahead - fy * right, world.y + fy * ahead + fx * right
            inside = 0 <= x < world.width and 0 <= y < world.height
            thing = world.cells[x, y] if inside else WALL
            things[i, j] = thing
            opaque[i, j] = _opaque(world, thing)
    seen[VIEW // 2, VIEW - 1] = True
    for j in range(VIEW - 1, -1, -1):
        for i in range(VIEW - 1):
            _spread(seen, opaque, i, j, i + 1)
        for i in range(VIEW - 1, 0, -1):
            _spread(seen, opaque, i, j, i - 1)
    things[VIEW // 2, VIEW - 1] = world.carrying
    for i in range(VIEW):
        for j in range(VIEW):
            thing = things[i, j]
            world.image[i, j, 0] = world.kind[thing] if seen[i, j] else 0
            world.image[i, j, 1] = world.color[thing] if seen[i, j] else 0
            world.image[i, j, 2] = world.state[thing] if seen[i, j] else 0


@compiled
def play(world: Any, action: int) -> tuple[float, bool, bool]:
    """One step: the reward, and whether the attempt has ended or has taken too long."""
    world.steps += 1
    _act(world, action)
    if action == DROP:
        _look_again(world)
    _see(world)
    status = _mission(world, action)
    reward = 1 - 0.9 * (world.steps / world.max_steps) if status == _DONE else 0.0
    return reward, status != _GOES_ON, world.steps >= world.max_steps


@kernel
def play_one(worlds: World, action: int) -> tuple[float, bool, bool]:
    """Play in the only one of ``(1,)`` worlds."""
    return play(worlds[0], action)
