"""Procgen's C++ core, called without the packages around it.

The wheels `procgen`, `procgen-mirror` and `procgen-gym` ship one shared library, whose interface is libenv's (gym3's
``libenv.h``; version 1, or procgen-gym's version 3). Only the library and its images are used: neither ``gym`` nor
``gym3`` is imported. The same level is the same game in all three, but each was built with another Qt, and a few pixels
of some games differ.

A :class:`Core` plays the levels of one game. When an attempt ends, the library itself starts a level of its choice and
draws that level's first frame instead of the attempt's last (``game.cpp``). A saved state contains the range of levels
to choose from. So to start a certain level, a core restores a state whose range is that level alone and plays the
action -1. This is cheaper than a new environment, which has to scale its images again. A level started like this shows
nothing of earlier levels (``tests/suites/test_procgen.py``). A level that the library starts may show something:
dodgeball's player looks in the direction of its last move.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
import sys
import threading
import weakref
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from mtbench.errors import DISTRIBUTION, UsageError

FRAME = (64, 64, 3)
PICTURE = (512, 512, 3)
NUM_ACTIONS = 15
MODES = {"easy": 0, "hard": 1, "memory": 10}  # game.h: DistributionMode

#: Packages with the library, of which one is enough.
PACKAGES = ("procgen", "procgen_gym")
_LARGEST_STATE = 2**20
#: By game, a level that the library makes quickly. Most levels of leaper take as long as fifty steps, because the
#: library simulates the cars before a level begins.
_QUICK_LEVELS = {"leaper": 3}
_UINT8, _INT32 = 1, 2  # libenv.h: libenv_dtype


class _Option(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char * 128),
        ("dtype", ctypes.c_int),
        ("count", ctypes.c_int),
        ("data", ctypes.c_void_p),
    )


class _Options(ctypes.Structure):
    _fields_ = (("items", ctypes.POINTER(_Option)), ("count", ctypes.c_int))


class _Buffers(ctypes.Structure):
    """Pointers to memory, and to arrays of such pointers; their order is :data:`_ORDER`'s."""

    _fields_ = tuple((f"pointer{i}", ctypes.c_void_p) for i in range(5))


# By libenv's version: the order of its buffers. Version 3 takes options by their address.
_ORDER = {
    1: ("observations", "rewards", "firsts", "infos", "actions"),
    3: ("observations", "actions", "infos", "rewards", "firsts"),
}


@dataclass(frozen=True, slots=True)
class Buffers:
    """Memory the library reads and writes; it must outlive the :class:`Core`.

    Attributes:
        frame: ``(64, 64, 3)`` uint8.
        action: ``(1,)`` int32, read.
        reward: ``(1,)`` float32.
        over: ``(1,)`` uint8: 1 if the attempt has ended; `frame` is then the first of the next level.
    """

    frame: npt.NDArray[np.uint8]
    action: npt.NDArray[np.int32]
    reward: npt.NDArray[np.float32]
    over: npt.NDArray[np.uint8]

    @staticmethod
    def new() -> Buffers:
        """New buffers, all zeros."""
        one = np.zeros
        return Buffers(one(FRAME, np.uint8), one(1, np.int32), one(1, np.float32), one(1, np.uint8))


class Core:
    """One game, at the start of a level.

    Args:
        game: The game's name.
        mode: One of :data:`MODES`.
        level: The level's seed, from 0 to 2**31 - 2.
        buffers: The memory that the library reads and writes.
        picture: ``(512, 512, 3)`` uint8, written by :meth:`draw`; None for a core that cannot draw.
        centered: Frames follow the player, as an agent sees them; else they show the whole level.

    Attributes:
        level: The seed of the level being played.
        start: The state at the level's start.
    """

    def __init__(
        self,
        game: str,
        mode: str,
        level: int,
        buffers: Buffers,
        picture: npt.NDArray[np.uint8] | None = None,
        centered: bool = True,
    ) -> None:
        self.level: int = level
        self._library = library()
        self._buffers = buffers
        options = _options(game, MODES[mode], level, picture is not None, centered)
        with _MAKING:
            # libenv 3 gets a pointer: see `library`
            self.handle: Final = int(self._library.libenv_make(1, options.structure))
        self._infos = np.zeros((3, 1), dtype=np.int32)  # previous level, whether it was completed, level
        infos = [self._infos[0], self._infos[1], self._infos[2], *([] if picture is None else [picture])]
        arrays = {
            "observations": _pointers(buffers.frame),
            "infos": _pointers(*infos),
            "actions": _pointers(buffers.action),
        }
        addresses = {name: ctypes.addressof(array) for name, array in arrays.items()}
        addresses |= {"rewards": buffers.reward.ctypes.data, "firsts": buffers.over.ctypes.data}
        self._pointed = _Buffers(*(addresses[name] for name in _ORDER[self._library.libenv_version()]))
        self._library.libenv_set_buffers(self.handle, ctypes.byref(self._pointed))  # starts the level
        # These objects must live until the environment is closed, because the library writes to them.
        keep = (self._pointed, arrays, infos, buffers)
        self.close: Final = weakref.finalize(self, _close, self._library, self.handle, keep)
        self.start: bytes = self.state()
        # The range of levels comes after version, length and text of the name, 12 options, and the grid's step
        # (Game::serialize).
        self._levels_at = 4 + 4 + len(game) + 4 * 13
        if _LEVELS.unpack_from(self.start, self._levels_at) != (level, level + 1):
            raise UsageError("This build of Procgen saves its states in another way than mtbench knows.")
        self._next = _QUICK_LEVELS.get(game)
        self._choose_quick_next_level()

    def begin(self, level: int) -> None:
        """Start a level. Starting the current level again restores its saved start."""
        if level == self.level:
            self.restore(self.start)
            return
        self.restore(self._start_followed_by(level))
        self._buffers.action[0] = -1
        self.act()
        self.start, self.level = self.state(), level
        self._choose_quick_next_level()

    def _start_followed_by(self, level: int) -> bytes:
        """The start of the current level, as a state after which the library starts `level`."""
        state = bytearray(self.start)
        _LEVELS.pack_into(state, self._levels_at, level, level + 1)
        return bytes(state)

    def _choose_quick_next_level(self) -> None:
        """Make the library start a quick level when the attempt ends, if the game has one: nobody plays that level."""
        if self._next is not None:
            self.start = self._start_followed_by(self._next)
            self.restore(self.start)

    def act(self) -> None:
        """Play the action in the buffers."""
        self._library.libenv_act(self.handle)

    def draw(self) -> None:
        """Draw the picture."""
        self._library.libenv_observe(self.handle)

    def state(self) -> bytes:
        """The complete state of the game, about 40 kB."""
        if not hasattr(_SCRATCH, "state"):
            _SCRATCH.state = ctypes.create_string_buffer(_LARGEST_STATE)
        size = self._library.get_state(self.handle, 0, _SCRATCH.state, _LARGEST_STATE)
        return ctypes.string_at(_SCRATCH.state, size)

    def restore(self, state: bytes) -> None:
        """Restore a :meth:`state` of the same level and draw its frame."""
        self._library.set_state(self.handle, 0, state, len(state))


_LEVELS = struct.Struct("<ii")  # the first level, and one past the last
_MAKING = threading.Lock()
_SCRATCH = threading.local()


def _close(library: Any, handle: int, keep: Any) -> None:
    library.libenv_close(handle)


def find_library() -> Path | None:
    """The package folder with the library, if one is installed."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent
    return None


def require_library() -> Path:
    """The package folder with the library.

    Raises:
        gymnasium.error.DependencyNotInstalled: None is installed; the message has the line that installs it.
    """
    folder = find_library()
    if folder is None:
        wheel = wheel_for(sys.version_info[:2])
        raise gym.error.DependencyNotInstalled(
            f"The Procgen suite needs the package `{wheel}`, which is not installed. Run: pip install "
            f"'{DISTRIBUTION}[procgen]', or, to keep NumPy 2: pip install --no-deps {wheel}"
        )
    return folder


def wheel_for(python: tuple[int, ...]) -> str:
    """The distribution that has wheels for a Python version."""
    return "procgen" if python < (3, 11) else "procgen-mirror" if python < (3, 13) else "procgen-gym"


@lru_cache
def library() -> Any:
    """The shared library, loaded once per process. Its images load with the first environment, which takes seconds.

    Raises:
        gymnasium.error.DependencyNotInstalled: None is installed, or a system library that it needs is not.
        UsageError: The library has an unknown version of libenv.
    """
    folder = require_library() / "data" / "prebuilt"
    name = {"darwin": "libenv.dylib", "win32": "env.dll"}.get(sys.platform, "libenv.so")
    # The same flags as in gym3: the library's Qt must not mix with another Qt in the process.
    mode = os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0) if hasattr(os, "RTLD_NOW") else 0
    try:
        loaded = ctypes.CDLL(str(folder / name), mode=mode)
    except OSError as error:  # the wheels leave OpenGL and GLib to the system, and small containers have neither
        raise gym.error.DependencyNotInstalled(
            f"Procgen's core cannot be loaded: {error}. On Debian and Ubuntu, its system libraries come with: "
            "apt install libgl1 libglib2.0-0"
        ) from error
    version = loaded.libenv_version()
    if version not in _ORDER:
        raise UsageError(
            f"{name} of {folder.parent.parent.name} has version {version} of libenv; mtbench knows 1 and 3."
        )
    handle, number, data = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    loaded.libenv_make.restype = handle
    loaded.libenv_make.argtypes = [number, _Options if version == 1 else ctypes.POINTER(_Options)]
    loaded.libenv_set_buffers.argtypes = [handle, ctypes.POINTER(_Buffers)]
    for function in (loaded.libenv_act, loaded.libenv_observe, loaded.libenv_close):
        function.restype, function.argtypes = None, [handle]
    loaded.get_state.argtypes = [handle, number, data, number]
    loaded.set_state.restype, loaded.set_state.argtypes = None, [handle, number, data, number]
    return loaded


@lru_cache
def _assets() -> str:
    return f"{require_library() / 'data' / 'assets'}{os.sep}"


@dataclass(frozen=True, slots=True)
class _Converted:
    structure: _Options
    kept: list[Any]  # the objects that `structure` points to


def _options(game: str, mode: int, level: int, drawing: bool, centered: bool) -> _Converted:
    options: dict[str, bool | int | str] = {
        "env_name": game,
        "distribution_mode": mode,
        "start_level": level,
        "num_levels": 1,
        "num_actions": NUM_ACTIONS,
        "num_threads": 0,
        "rand_seed": 0,  # chooses among the levels: there is only one
        "render_human": drawing,
        "resource_root": _assets(),
        "center_agent": centered,
        "use_backgrounds": True,
    }
    items = (_Option * len(options))()
    kept: list[Any] = [items]
    for item, (name, value) in zip(items, options.items(), strict=True):
        data: Any
        if isinstance(value, str):
            data, item.dtype, item.count = ctypes.create_string_buffer(value.encode()), _UINT8, len(value.encode())
        elif isinstance(value, bool):
            data, item.dtype, item.count = ctypes.c_uint8(value), _UINT8, 1
        else:
            data, item.dtype, item.count = ctypes.c_int32(value), _INT32, 1
        item.name, item.data = name.encode(), ctypes.addressof(data)
        kept.append(data)
    return _Converted(_Options(items, len(options)), kept)


def _pointers(*arrays: npt.NDArray[Any]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
