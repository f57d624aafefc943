"""Layouts, drawn by upstream and converted to small records for :mod:`mtbench.suites.babyai.rules`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from mtbench.errors import UsageError

#: Width and height of what the agent sees.
VIEW = 7
IMAGE = (VIEW, VIEW, 3)
#: Maximum cells per side, and maximum number of objects. Object 0 means none, and object 1 is a wall.
SIZE, OBJECTS = 24, 64
NOTHING, WALL = 0, 1
# minigrid/core/constants.py: kinds, states of doors, directions.
EMPTY_KIND, WALL_KIND, DOOR, KEY, BALL, BOX = 1, 2, 4, 5, 6, 7
GREY = 5
OPEN, CLOSED, LOCKED = range(3)
TO_X, TO_Y = (1, 0, -1, 0), (0, 1, 0, -1)
# minigrid/core/actions.py
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DO_NOTHING = range(7)
NUM_ACTIONS = 7

# The goal of a mission's clause, and how two clauses are joined.
GO_TO, OPEN_IT, PICK_UP, PUT_NEXT = range(4)
ALONE, BEFORE, AFTER, AND = range(4)
_CLAUSES = {"GoToInstr": GO_TO, "OpenInstr": OPEN_IT, "PickupInstr": PICK_UP, "PutNextInstr": PUT_NEXT}
_JOINED = {"BeforeInstr": BEFORE, "AfterInstr": AFTER, "AndInstr": AND}

# Places and directions that are tried for the agent. If there is a right one, it is among 36 in the smallest rooms.
_MOST_TRIES = 5000

_FIELDS = np.dtype(
    [
        ("cells", "u1", (SIZE, SIZE)),  # objects by [x, y]
        ("kind", "u1", (OBJECTS,)),
        ("color", "u1", (OBJECTS,)),
        ("state", "u1", (OBJECTS,)),
        ("contains", "u1", (OBJECTS,)),
        ("image", "u1", IMAGE),  # what the agent sees: kind, color and state by [across, ahead]
        ("x", "i4"),
        ("y", "i4"),
        ("facing", "i4"),
        ("carrying", "u1"),
        ("steps", "i4"),
        ("max_steps", "i4"),
        ("width", "i4"),
        ("height", "i4"),
        # The mission: one clause, or two that are joined.
        ("joined", "u1"),
        ("joined_strict", "u1"),
        ("clause", "u1", (2,)),
        ("strict", "u1", (2,)),
        ("done", "u1", (2,)),
        ("carried", "u1", (2,)),  # the object carried when the clause was last checked
        ("moved", "u8", (2,)),  # one bit for each object to open, pick up or put
        ("tracked", "u8", (2,)),  # one bit for each object to go to, or to put next to ...
        ("places", "u1", (2, SIZE, SIZE)),  # ... and where they are known to be
    ]
)
# np.record gives access to fields as attributes, as Numba does, so that the rules also run uncompiled.
WORLD = np.dtype((np.record, _FIELDS))
World = npt.NDArray[Any]


def upstream(task: str, **kwargs: Any) -> Any:
    """Upstream's environment, without wrappers.

    It prints nothing when it has to draw a layout again, and it also does so where upstream would never end.
    """
    import minigrid  # noqa: F401 (registers)
    from minigrid.envs.babyai.core import roomgrid_level

    roomgrid_level.print = _say_nothing  # type: ignore[attr-defined]
    env = gym.make(task, disable_env_checker=True, **kwargs).unwrapped
    _give_up_on_agents_without_a_place(env)
    return env


def _say_nothing(*text: object) -> None: ...


def _give_up_on_agents_without_a_place(env: Any) -> None:
    """Let upstream draw a layout again if the agent finds no place in it.

    The agent must not look at an object. In a small room that is full of them, every free cell may have one on all four
    sides, and ``RoomGrid.place_agent`` (minigrid/core/roomgrid.py) would try for ever. Where an object finds no place,
    upstream raises RecursionError and draws again.
    """
    place, generate, tries = env.place_obj, env._gen_grid, 0

    def place_obj(obj: Any, *where: Any, **how: Any) -> Any:
        nonlocal tries
        tries = 0 if obj is not None else tries + 1  # None stands for the agent
        if tries > _MOST_TRIES:
            tries = 0
            raise RecursionError("the agent finds no place")
        return place(obj, *where, **how)

    def generate_grid(width: int, height: int) -> None:
        nonlocal tries
        tries = 0
        generate(width, height)

    env.place_obj, env._gen_grid = place_obj, generate_grid


class Layouts:
    """Draws layouts of one task from seeds, as records with their missions.

    Args:
        task: A registered ``BabyAI-*`` name.
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self._env = upstream(task)

    def draw(self, seed: int) -> tuple[World, str]:
        """The world at an attempt's start, ``()`` of :data:`WORLD`, and its mission."""
        seen, _ = self._env.reset(seed=seed)
        return compiled_layout(self._env, seen["image"]), self._env.mission

    def __reduce__(self) -> Any:
        return Layouts, (self.task,)


def compiled_layout(env: Any, view: npt.NDArray[np.uint8]) -> World:
    """Convert a freshly reset upstream environment to a record.

    Args:
        env: A ``RoomGridLevel``.
        view: The image of its first observation, which may be older than its state (``PutNextS5N2Carrying``).

    Returns:
        ``()`` of :data:`WORLD`.

    Raises:
        UsageError: The layout has something that the compiled rules do not support.
    """
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

    world = np.zeros((), WORLD)
    grid = env.grid
    if max(grid.width, grid.height) > SIZE:
        raise UsageError(f"This task's grid is {grid.width} x {grid.height}; at most {SIZE} x {SIZE} are supported.")
    world["kind"][:2], world["color"][:2] = (EMPTY_KIND, WALL_KIND), (0, GREY)
    numbers: dict[int, int] = {}

    def number(thing: Any) -> int:
        if thing is None:
            return NOTHING
        if thing.type == "wall" and thing.color == "grey":
            return WALL
        if id(thing) not in numbers:
            at = numbers[id(thing)] = 2 + len(numbers)
            if at >= OBJECTS or thing.type not in ("door", "key", "ball", "box"):
                raise UsageError(f"This task's layout has too many objects, or one of an unknown type ({thing.type}).")
            world["kind"][at], world["color"][at] = OBJECT_TO_IDX[thing.type], COLOR_TO_IDX[thing.color]
            world["state"][at] = thing.encode()[2]
            world["contains"][at] = number(thing.contains)
        return numbers[id(thing)]

    cells = [number(thing) for thing in grid.grid]
    world["cells"][: grid.width, : grid.height] = np.array(cells, dtype=np.uint8).reshape(grid.height, grid.width).T
    world["width"], world["height"] = grid.width, grid.height
    world["x"], world["y"], world["facing"] = int(env.agent_pos[0]), int(env.agent_pos[1]), int(env.agent_dir)
    world["carrying"], world["image"] = number(env.carrying), view
    world["steps"], world["max_steps"] = env.step_count, env.max_steps
    _write_mission(world, env.instrs, number)
    return world


def _write_mission(world: World, mission: Any, number: Callable[[Any], int]) -> None:
    from minigrid.envs.babyai.core import verifier

    if verifier.use_done_actions:
        raise UsageError("Missions that end by the action `done` are not supported: unset BABYAI_DONE_ACTIONS.")
    name = type(mission).__name__
    clauses = [mission]
    if name in _JOINED:
        world["joined"], world["joined_strict"] = _JOINED[name], bool(mission.strict)
        clauses = [mission.instr_a, mission.instr_b]
    for i, clause in enumerate(clauses):
        kind = type(clause).__name__
        if kind not in _CLAUSES:
            raise UsageError(f"This task's mission joins more than two clauses, or has an unknown one ({kind}).")
        world["clause"][i], world["strict"][i] = _CLAUSES[kind], bool(getattr(clause, "strict", False))
        put = kind == "PutNextInstr"
        moved, known = (clause.desc_move, clause.desc_fixed) if put else (clause.desc, clause.desc)
        world["carried"][i] = number(getattr(clause, "preCarrying", None))
        world["moved"][i] = _bits(moved.obj_set, number)
        world["tracked"][i] = _bits(known.obj_set, number)
        for x, y in known.obj_poss:
            world["places"][i, x, y] = True


def _bits(things: list[Any], number: Callable[[Any], int]) -> int:
    bits = 0
    for thing in things:
        at = number(thing)
        if at != WALL:  # all walls have one number; only their places tell them apart
            bits |= 1 << at
    return bits
