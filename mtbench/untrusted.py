"""Read small untrusted files: regular files of bounded size, strict JSON, short error messages."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from mtbench.errors import UsageError

# The longest name that a record may hold, in characters.
MAX_NAME = 200

_MAX_DEPTH = 16


def shown(value: object, limit: int = 120) -> str:
    """Quote `value` for a message: control characters escaped, cut to `limit` characters."""
    # Slicing first keeps a long string from being escaped whole.
    text = repr(value[:limit] if isinstance(value, (str, list, tuple)) else value)
    whole = not isinstance(value, (str, list, tuple)) or len(value) <= limit
    return text if whole and len(text) <= limit else f"{text[:limit]}..."


def is_name(value: object) -> bool:
    """Whether `value` is a string of 1 to :data:`MAX_NAME` printable characters."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def read_regular(path: Path, limit: int, error: type[UsageError] = UsageError) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Args:
        path: The file; a symbolic link is refused.
        limit: In bytes.
        error: What to raise.

    Raises:
        UsageError: It is missing, a link, no regular file, or too large.
    """
    # O_NONBLOCK: opening a named pipe must not wait for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if path.is_symlink():
        raise error(f"{path} is a symbolic link. Put the file itself there.")
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise error(f"{path} does not exist.") from None
    except OSError as reason:
        raise error(f"{path} cannot be opened: {reason.strerror}.") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise error(f"{path} is not a regular file.")
    with open(descriptor, "rb") as file:
        content = file.read(limit + 1) if status.st_size <= limit else b""
    if status.st_size > limit or len(content) > limit:
        raise error(f"{path} is too large: {max(status.st_size, len(content)):,} bytes, at most {limit:,} are read.")
    return content


def read_digested(path: Path, limit: int, digest: str, error: type[UsageError] = UsageError) -> bytes:
    """The content of a regular file that a manifest gives the SHA-256 digest of.

    Args:
        path: The file.
        limit: In bytes.
        digest: What its manifest says.
        error: What to raise.

    Raises:
        UsageError: As for :func:`read_regular`, or the digest is another one.
    """
    content = read_regular(path, limit, error)
    if hashlib.sha256(content).hexdigest() != digest:
        raise error(
            f"{path} is not the file its manifest describes (checksum differs): "
            "it was changed after the evaluation or belongs to another run."
        )
    return content


def parse_json(path: Path, content: bytes, error: type[UsageError] = UsageError) -> Any:
    """Strict JSON: UTF-8, no key twice, no NaN or Infinity, bounded nesting.

    Args:
        path: Where it comes from, for messages.
        content: The file's bytes.
        error: What to raise.

    Raises:
        UsageError: It is not strict JSON; the message says why.
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise error(f"{path} is not valid JSON: it is nested too deeply.") from None
    except ValueError as reason:
        raise error(f"{path} is not valid JSON: {reason}") from None
    if _depth(value) > _MAX_DEPTH:
        raise error(f"{path} is not valid JSON: it is nested too deeply, at most {_MAX_DEPTH} levels are read.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {shown(key)} occurs twice.")
        content[key] = value
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number.")


def _depth(value: object) -> int:
    """How deeply lists and objects are nested, counted to just beyond the limit."""
    level, depth = [value], 0
    while depth <= _MAX_DEPTH and any(isinstance(item, (dict, list)) for item in level):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        depth += 1
    return depth
