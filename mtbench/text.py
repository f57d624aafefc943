"""Names from outside, made safe to show."""

from __future__ import annotations

import re

# Terminal control sequences: CSI (colours, cursor), OSC (titles, links) up to their end, and two-character escapes.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)


def plain(name: str, limit: int = 100) -> str:
    """A name without control characters and terminal escapes, cut to `limit` characters with an ellipsis."""
    # A name that is much too long is cut before it is searched.
    printable = "".join(character for character in _SEQUENCES.sub("", name[: 10 * limit]) if character.isprintable())
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"
