"""Test your own suite with the contract tests that every ID of this package passes.

The tests need pytest, and Numba if the suite has an engine. The tests with Stable-Baselines3's environment checker and
of video recording (moviepy) are skipped if these packages are missing.

    >>> from mtbench.testing import check_suite
    >>> check_suite("MyTasks-v0", module="my_package.my_suite")  # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtbench.errors import UsageError

#: The environment variable that tells the contract tests what to test: JSON with the arguments of :func:`check_suite`.
VARIABLE = "MTBENCH_CONTRACT"


def check_suite(
    env_id: str,
    module: str | None = None,
    *,
    tasks: Mapping[str, Sequence[str]] | None = None,
    pytest_options: Sequence[str] = (),
) -> None:
    """Run the contract tests of one ID in a new process.

    Args:
        env_id: A registered ID.
        module: The module that registers the ID when it is imported; None for the IDs of this package.
        tasks: By split, the tasks to test, if some tasks take too long; by default all.
        pytest_options: Such as ``["-k", "spaces"]`` or ``["-n", "auto"]``.

    Raises:
        UsageError: pytest is not installed.
        AssertionError: The suite breaks the contract; the message is pytest's report.
    """
    import importlib.util

    if importlib.util.find_spec("pytest") is None:
        raise UsageError("check_suite runs tests with pytest: pip install pytest")
    wanted = {"env_id": env_id, "module": module, "tasks": {key: list(names) for key, names in (tasks or {}).items()}}
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)  # the new process finds the same modules
    folder = Path(__file__).parent / "_contract"
    # The tests do not use the caller's configuration of pytest.
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(folder), str(folder)]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *pytest_options],
        env={**os.environ, VARIABLE: json.dumps(wanted), "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise AssertionError(f"{env_id} breaks the contract, or its tests cannot run.\n{done.stdout}{done.stderr}")
