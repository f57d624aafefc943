"""Settings of training runs, whatever the agent.

Settings are typed, frozen dataclasses. A field states its type and its bounds, and a config checks them when it is
made, wherever the values come from. Changes name settings with dots: ``model.width=128``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from mtbench.errors import UsageError, unknown_name_error
from mtbench.untrusted import MAX_NAME, parse_json, read_regular, shown

_MAX_FILE = 1 << 20  # bytes of a config.json

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number, or each number of a tuple, may be: against mistakes, and files that ask for too much memory.

    Attributes:
        least: At least this.
        most: At most this.
        below: Less than `most`, not equal.
        entries: Least and most length of a tuple.
    """

    least: float
    most: float
    below: bool = False
    entries: tuple[int, int] = (0, 64)


def number(default: T, least: float, most: float, **further: Any) -> T:
    """A field with bounds; `further` are those of :class:`Bounds`."""
    made: T = field(default=default, metadata={"bounds": Bounds(least, most, **further)})
    return made


def hints(config: Any) -> dict[str, Any]:
    """Type of each setting of a config's class."""
    return get_type_hints(config)


def check(config: Any, prefix: str) -> None:
    """Check every setting against its field's type and bounds; lists become tuples and whole numbers floats."""
    types = hints(type(config))
    for one in dataclasses.fields(config):
        name, hint, value = prefix + one.name, types[one.name], getattr(config, one.name)
        if dataclasses.is_dataclass(hint):
            if type(value) is not hint:
                raise UsageError(f"`{name}` takes settings by name, got {shown(value)}.")
            continue
        value = converted(name, value, hint)
        if "bounds" in one.metadata:
            _check_bounds(name, value, one.metadata["bounds"])
        object.__setattr__(config, one.name, value)  # the class is frozen; it is being made


def _check_bounds(name: str, value: Any, bounds: Bounds) -> None:
    if isinstance(value, tuple):
        fewest, most = bounds.entries
        if len(value) > most:
            raise UsageError(f"`{name}` must have at most {most} entries.")
        if len(value) < fewest:
            raise UsageError(f"`{name}` must have at least {fewest} entries, got {shown(value)}.")
    for entry in value if isinstance(value, tuple) else (value,):
        if entry is None:
            continue
        if bounds.below and not bounds.least <= entry < bounds.most:
            raise UsageError(f"`{name}` must lie in [{bounds.least}, {bounds.most}), got {shown(entry)}.")
        if not bounds.least <= entry <= bounds.most:
            raise UsageError(f"`{name}` must be at least {bounds.least} and at most {bounds.most}, got {shown(entry)}.")


def converted(name: str, value: Any, hint: Any) -> Any:
    """`value` as a setting of the type `hint`, from what JSON can say."""
    origin, allowed = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in allowed:
            given = value[:MAX_NAME] if isinstance(value, str) else shown(value)
            raise unknown_name_error(name, given, list(allowed), "this agent")
        return value
    if origin is UnionType:
        return None if value is None else converted(name, value, allowed[0])
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [allowed[0]] * len(value) if allowed[-1] is Ellipsis else list(allowed)
        if len(kinds) != len(value):
            raise UsageError(f"`{name}` takes {len(kinds)} values, got {shown(value)}.")
        return tuple(converted(name, entry, kind) for entry, kind in zip(value, kinds, strict=True))
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:  # False for NaN
            raise UsageError(f"`{name}` takes a finite number, got {shown(value)}.")
        return float(value)
    kind = origin or hint
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        raise UsageError(f"`{name}` takes {kind.__name__}, got {shown(value)}.")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """As JSON holds it."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def updated(config: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """A copy with some settings changed.

    Args:
        config: A config or a part of one.
        changes: By name; a part's settings as a mapping, or with a dotted name.
        prefix: Of names in messages.

    Raises:
        UsageError: A setting does not exist or has another type.
    """
    known = hints(type(config))
    nested: dict[str, dict[str, Any]] = {}
    plain: dict[str, Any] = {}
    for key, value in changes.items():
        head, dot, rest = key.partition(".")
        if head not in known:
            names = [prefix + name for name in known]
            raise unknown_name_error("setting", prefix + key[:MAX_NAME], names, "this agent")
        if dataclasses.is_dataclass(known[head]):
            if not dot and not isinstance(value, Mapping):
                raise UsageError(f"`{prefix}{head}` takes settings by name, got {shown(value)}.")
            nested.setdefault(head, {}).update({rest: value} if dot else value)
        elif dot and get_origin(known[head]) is dict:
            before = plain.get(head, getattr(config, head))
            plain[head] = {**converted(prefix + head, before, known[head]), rest: value}
        elif dot:
            raise UsageError(f"`{prefix}{head}` has no settings of its own, such as {shown(key)}.")
        else:
            plain[head] = value
    for head, inner in nested.items():
        plain[head] = updated(getattr(config, head), inner, f"{prefix}{head}.")
    return dataclasses.replace(config, **plain)


def read_settings(path: Path, made: Callable[[Mapping[str, Any]], T]) -> T:
    """The config in an untrusted file.

    Args:
        path: A ``config.json``.
        made: Makes the config of what the file holds; it raises UsageError.

    Raises:
        UsageError: It is missing, a link, too large, not strict JSON, or no config; the message says which.
    """
    content = parse_json(path, read_regular(path, _MAX_FILE))
    if not isinstance(content, Mapping):
        raise UsageError(f"{path}: A config is a JSON object of settings, not {shown(content)}.")
    try:
        return made(content)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
