"""Lock this process in, and then run :mod:`mtbench.isolated` in it.

A script of its own, started as ``python -I sandbox.py``: it imports nothing but the standard library, so that no thread
is there yet when the doors close. What may be read and written it is told first, as JSON behind its length. From then
on the process can open no other file and not the memory of any process outside. That is Linux's Landlock (5.13 or
newer); from Linux 6.7 on it reaches no network either, and from 6.12 on it sends no signal to a process outside.
"""

import ctypes
import json
import os
import platform
import struct
import sys

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # Landlock's system calls, on every architecture
_NO_NEW_PRIVILEGES = 38
_PATH_BENEATH = 1

# Rights to files, by their bit (linux/landlock.h).
_EXECUTE, _WRITE, _READ, _LIST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_OF_FILES = _EXECUTE | _WRITE | _READ | 1 << 14 | 1 << 15  # and truncate, ioctl on devices
# Rights of the first version, and what later ones can forbid: moving, truncating, ioctl.
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_NETWORK, _SCOPES = 0b11, 0b11  # binding and connecting; abstract sockets and signals

# By machine, its number in linux/audit.h, and of the calls that make a socket: socket, io_uring_setup.
_SOCKETS = {"x86_64": (0xC000003E, (41, 425)), "aarch64": (0xC00000B7, (198, 425))}


def version() -> int:
    """Landlock's version here; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    found = ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, int(found))


def lock_in(rules: "list[tuple[str, str]]") -> None:
    """Forbid everything but what the rules allow, for this thread and all that it starts.

    Args:
        rules: Paths, with all that is under them, and what is allowed: "read", "list" (names in folders) or "write"
            (all). Paths that do not exist are passed over.

    Raises:
        OSError: The kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    known = version()
    handled = next(rights for least, rights in sorted(_ALL.items(), reverse=True) if known >= least)
    attributes = struct.pack("=QQQ", handled, _NETWORK if known >= 4 else 0, _SCOPES if known >= 6 else 0)
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    ruleset = _checked(libc.syscall(_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)))
    rights = {"read": _EXECUTE | _READ | _LIST, "list": _LIST, "write": handled}
    for path, allowed in rules:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        wanted = rights[allowed] & handled
        if not os.path.isdir(path):
            wanted &= _OF_FILES
        if wanted:
            beneath = struct.pack("=Qi", wanted, opened)
            _checked(libc.syscall(_ADD, ruleset, _PATH_BENEATH, beneath, ctypes.c_uint32(0)))
        os.close(opened)
    _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(libc.syscall(_RESTRICT, ruleset, ctypes.c_uint32(0)))
    os.close(ruleset)


def forbid_sockets() -> None:
    """Let this process make no socket; it needs the promise that :func:`lock_in` has made.

    Raises:
        OSError: The kernel refuses, or the machine is none of those that are known here.
    """
    if platform.machine() not in _SOCKETS:
        raise OSError(f"Sockets cannot be forbidden on {platform.machine()}: known are {', '.join(_SOCKETS)}.")
    machine, calls = _SOCKETS[platform.machine()]
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | 1  # 1: EPERM
    tests = [(load, 0, 0, 4), (equal, 1, 0, machine), (answer, 0, 0, refuse), (load, 0, 0, 0)]
    # Calls of a second numbering (x32) begin here; every test jumps to the last line, or goes on.
    forbidden = [(at_least, 0x40000000), *((equal, call) for call in calls)]
    tests += [(test, len(forbidden) - i, 0, number) for i, (test, number) in enumerate(forbidden)]
    tests += [(answer, 0, 0, allow), (answer, 0, 0, refuse)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *test) for test in tests))
    described = struct.pack("@HP", len(tests), ctypes.addressof(program))
    _checked(ctypes.CDLL(None, use_errno=True).prctl(22, 2, described, 0, 0))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"this process cannot be locked in: {os.strerror(error)}")
    return int(result)


def main() -> None:
    """Read the rules, lock, run."""
    (length,) = struct.unpack("<q", _exactly(8))
    told = json.loads(_exactly(length))
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    lock_in([tuple(rule) for rule in told["rules"]])
    forbid_sockets()
    sys.path[:] = told["path"]
    import runpy

    runpy.run_module("mtbench.isolated", run_name="__main__")


def _exactly(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(0, count)
        if not part:
            raise SystemExit(0)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
