"""Where a result comes from: versions, hardware and source revision, for the manifest of every run."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mtbench

#: Packages whose versions every record has, beside those of its suite.
COMMON = ("gymnasium", "numpy")


def provenance(distributions: Sequence[str]) -> dict[str, Any]:
    """Versions, hardware and git commit as JSON-safe values. It names no path and no host.

    Args:
        distributions: Installed packages to report beside Python, mtbench, Gymnasium and NumPy.
    """
    return {
        "versions": versions((*COMMON, *distributions)),
        "hardware": {
            "system": platform.system(),
            "machine": platform.machine(),
            "cpu": _cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        },
        "git_commit": git_commit(),
    }


def versions(distributions: Sequence[str]) -> dict[str, str]:
    """Versions by name: of Python, of mtbench and of installed packages."""
    found = {"python": platform.python_version(), "mtbench": mtbench.__version__}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def git_commit() -> str | None:
    """The checkout's commit with ``+`` where files differ from it; None where mtbench is installed without git."""
    root = Path(mtbench.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
