"""Join a Ray cluster, or start a local one. Ray is imported here, when somebody asks for it, and nowhere else.

Ray speaks less than it would: no dashboard, no usage statistics, no output of workers; its errors go to the error
stream. Signals stay with whoever handled them before.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mtbench.errors import UsageError, missing_extra_error
from mtbench.provenance import versions
from mtbench.vector.engine import cpus

if TYPE_CHECKING:
    from types import ModuleType

# Seconds until a cluster counts as missing: to answer on its port, and to say that it is one.
_CONNECT, _ANSWER = 5.0, 15.0
_HEALTH = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address"]


@contextlib.contextmanager
def joined(address: str | None = None, cores: int | None = None) -> Iterator[ModuleType]:
    """Be connected to a cluster meanwhile, and get the module `ray`.

    A process that is connected already, by the caller's own ``ray.init``, stays so.

    Args:
        address: Of a cluster's head, such as ``"10.0.0.1:6379"``, or ``"auto"`` for the one that this machine is a
            node of. None means the one in the environment variable ``RAY_ADDRESS``; without it, Ray is started on this
            machine and ended with the context.
        cores: Of a local Ray that is started here, the number of CPUs; None means those that this process may use.

    Raises:
        UsageError: Nobody answers at the address, or who answers is no cluster that this process can join.
        DependencyNotInstalled: Ray is not installed.
    """
    ray = imported_ray()
    if ray.is_initialized():
        if address is not None:
            raise UsageError("This process is connected to a Ray cluster already: leave out the address.")
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with _signals_kept():
        _connect(ray, address, cores or cpus())
    try:
        yield ray
    finally:
        ray.shutdown()


def imported_ray() -> ModuleType:
    """The module.

    Raises:
        DependencyNotInstalled: It is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise missing_extra_error("ray", "ray", "A Ray cluster")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _connect(ray: ModuleType, address: str, cores: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address == "local":
        ray.init("local", num_cpus=cores, include_dashboard=False, **quiet)
    else:
        _require_cluster(address)
        try:
            ray.init(address, **quiet)
        except (RuntimeError, OSError, ValueError) as error:
            raise UsageError(
                f"This process cannot join the Ray cluster at {address}: {first_line(error)} It must run on a node of "
                f"the cluster: ray start --address={address} makes one of this machine."
            ) from None
    _print_to_stderr(ray)


def _require_cluster(address: str) -> None:
    """Ask before Ray does: where nobody answers, it goes on asking for minutes and then ends the process."""
    if "://" in address:
        raise UsageError(
            f"{address!r} is no address of a Ray cluster's head: write HOST:PORT, as `ray start` shows it."
        )
    host, colon, port = address.rpartition(":")
    if colon:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
        except (OSError, ValueError, OverflowError) as error:
            raise _missing(address, f"{error}") from None
    elif address != "auto":
        raise UsageError(f"{address!r} is no address of a Ray cluster: write HOST:PORT, or auto.")
    try:
        asked = subprocess.run([*_HEALTH, address], capture_output=True, text=True, timeout=_ANSWER)
    except subprocess.TimeoutExpired:
        raise _missing(address, "what answers there is no head of a cluster") from None
    if asked.returncode:
        said = asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"]
        raise _missing(address, said[-1])


def _missing(address: str, why: str) -> UsageError:
    return UsageError(
        f"There is no Ray cluster at {address} ({why.rstrip('.')}). `ray start --head` starts one and shows its "
        "address; without an address, Ray is started on this machine."
    )


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray replaces the handler of SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_to_stderr(ray: ModuleType) -> None:
    """Ray prints errors of its own, of killed workers say, among the output. They belong on the error stream."""
    worker = ray._private.worker
    show = getattr(worker, "print_to_stdstream", None)
    if show is None or getattr(show, "to_stderr", False):
        return

    def show_as_error(data: dict[str, Any], *arguments: Any, **kwargs: Any) -> None:
        lines = [line.partition(" To troubleshoot")[0] for line in data["lines"]]
        show({**data, "lines": lines, "is_err": True}, *arguments, **kwargs)

    vars(show_as_error)["to_stderr"] = True
    worker.print_to_stdstream = show_as_error


def first_line(error: BaseException) -> str:
    """What an error of Ray says first, as a sentence."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if line.endswith((".", "!", "?")) else f"{line}."


# ---- nodes ----


def node_name() -> str:
    """Of this node, for messages."""
    import ray

    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return f"{address} ({socket.gethostname()})"


def other_versions(wanted: Mapping[str, str]) -> str:
    """A sentence on how this node's versions differ from those of the process that sent work here; empty where none do.

    Args:
        wanted: Of Python, mtbench and its dependencies there, by name.
    """
    own = versions([name for name in wanted if name not in ("python", "mtbench")])
    different = ", ".join(
        f"{name} {own.get(name, 'not installed')} there and {version} here"
        for name, version in wanted.items()
        if own.get(name) != version
    )
    said = f"Node {node_name()} of the Ray cluster has other versions than this process: {different}."
    return said if different else ""
