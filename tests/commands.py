"""The commands as a user types them, in processes of their own."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mtbench
from mtbench.cli import app

MTBENCH = str(Path(sys.executable).with_name("mtbench"))
TASKS = '--env=tasks=["MineSweeperEasy","RepeatFirstEasy"]'


def run(*arguments, cwd, code=0, **kwargs):
    done = subprocess.run([MTBENCH, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def printed(*arguments, columns=80):
    """What a command prints, without a process of its own."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns)}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def terminal(*arguments, columns):
    """What a command prints on a terminal of so many columns."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    process = subprocess.Popen([MTBENCH, *arguments], stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's end of a terminal
            part = b""
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(60) == 0
    return shown.decode().replace("\r\n", "\n")


def evaluated(out, policy="random", **kwargs):
    """A run that `score` can read, made without a process."""
    tasks = {"tasks": ["MineSweeperEasy", "RepeatFirstEasy"]}
    return mtbench.evaluate("MTPOPGym-v0", policy, out, rollouts_per_task=3, env_kwargs=tasks, **kwargs)


def evaluate(out, cwd, *arguments, **kwargs):
    return run(
        "evaluate", "MTPOPGym-v0", "--out", out, "--rollouts-per-task", "3", TASKS, *arguments, cwd=cwd, **kwargs
    )
