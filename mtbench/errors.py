"""Messages that say what is wrong and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from gymnasium.error import DependencyNotInstalled

#: The name that pip installs. On the package index, `mtbench` is somebody else's database benchmark.
DISTRIBUTION = "mtbench-rl"


class UsageError(ValueError):
    """Something was asked for that cannot be; the message says what and what to do, so no traceback is needed."""


class RecordError(UsageError):
    """A run folder cannot be trusted; the message says which and why."""


class UnknownArgumentError(TypeError):
    """An environment was made with a keyword argument that does not exist."""


def unknown_name_error(kind: str, name: object, options: Sequence[str], where: str) -> UsageError:
    """A UsageError for a name that does not exist, naming the nearest one that does.

    Args:
        kind: What the name stands for, such as ``"task"``.
        name: What was asked for.
        options: The names that exist, in the order they should be listed.
        where: Where they exist, such as ``"split 'train' of suite 'popgym'"``.
    """
    return UsageError(f"There is no {kind} {name!r} in {where}.{_hint(name, options)}")


def unknown_argument_error(name: str, options: Sequence[str]) -> UnknownArgumentError:
    """The error for a keyword argument that environments do not take, naming the nearest one that they do.

    It has Python's own words: libraries look for them to learn which arguments an environment takes (TorchRL's
    ``GymEnv`` tries ``frameskip``).
    """
    return UnknownArgumentError(
        f"mtbench environments got an unexpected keyword argument {name!r}.{_hint(name, options)}"
    )


def _hint(name: object, options: Sequence[str]) -> str:
    lowered = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    nearest = f" Did you mean {lowered[near[0]]!r}?" if near else ""
    listing = ", ".join(options) if len(options) <= 12 else f"{', '.join(options[:8])}, ... ({len(options)})"
    return f"{nearest} Choose from: {listing}."


def missing_extra_error(package: str, extra: str, why: str) -> DependencyNotInstalled:
    """The error for an optional dependency that is not installed, with the line that installs it.

    Args:
        package: Import name.
        extra: The extra of this project that has it; "" if none has.
        why: What needs it.
    """
    needed = f"'{DISTRIBUTION}[{extra}]'" if extra else package
    return DependencyNotInstalled(
        f"{why} needs the package `{package}`, which is not installed. Run: pip install {needed}"
    )
