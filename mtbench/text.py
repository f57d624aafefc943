"""Escape names from records, paths and command lines, so that they never act as markup.

:func:`plain` removes control and invisible characters. Each other function calls it, then escapes the text for one
output format.
"""

from __future__ import annotations

import html
import re

# Terminal sequences with their arguments: OSC, DCS and the like up to their end; CSI; any other ESC with its letter.
_ESCAPES = re.compile(
    r"(?:\x1b[]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)

_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "^": "\\textasciicircum{}",
    "~": "\\textasciitilde{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
}

# What Markdown takes as it is: words, and numbers with their intervals.
_HARMLESS = re.compile(r"[A-Za-z][A-Za-z0-9 ,-]*|-?\d+\.\d+(?: \[-?\d+\.\d+, -?\d+\.\d+\])?|")


def plain(name: object, limit: int | None = 100) -> str:
    r"""One line of printable characters.

    Args:
        name: Converted to a string.
        limit: Longer text is cut to this many characters, the last of which is an ellipsis. None: not cut.

    Returns:
        The text without terminal sequences, control characters and invisible ones such as those that turn the reading
        direction; runs of white space are one space.

    Example:
        >>> plain("a\x1b[31m red  name")
        'a red name'
    """
    text = str(name)
    if not text.isprintable() or "  " in text or text != text.strip():
        text = " ".join(_ESCAPES.sub("", text).split())
        text = " ".join("".join(character for character in text if character.isprintable()).split())
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def for_markdown(text: object) -> str:
    """For a table cell, a list item or a paragraph of Markdown (CommonMark and GitHub's)."""
    text = plain(text, None)
    if _HARMLESS.fullmatch(text):  # most cells of large tables
        return text
    text = re.sub(r"&(?=[#A-Za-z])", "&amp;", text).replace("<", "&lt;")
    text = re.sub(r"[\\`*|~$]", r"\\\g<0>", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    # Brackets of intervals stay as they are; no bracket may begin a link, an image, a check box or a definition.
    text = re.sub(r"\[(?!-?\d)", r"\\[", text)
    text = re.sub(r"\](?=[(\[:])", r"]\\", text)
    # GitHub makes links of bare addresses and of names of people.
    text = re.sub(r":(?=//)|(?<=www)\.", r"\\\g<0>", text, flags=re.IGNORECASE).replace("@", "&#64;")
    # At the start of a line these begin a heading, a quotation, a list or a rule.
    return re.sub(r"^([#>=]|[+-](?=[\s-]|$)|\d+(?=[.)](?:\s|$)))", lambda at: _at_line_start(at[0]), text)


def _at_line_start(text: str) -> str:
    return f"&#{ord(text[0])};{text[1:]}" if text[0].isdigit() else f"\\{text}"


def for_latex(text: object) -> str:
    """For text and comments of a LaTeX document."""
    escaped = "".join(_LATEX.get(character, character) for character in plain(text, None))
    # After the end of a table row, LaTeX reads these as arguments.
    return f"{{}}{escaped}" if escaped[:1] in ("[", "*") else escaped


def for_html(text: object) -> str:
    """For the text of an HTML element."""
    return html.escape(plain(text, None))


def for_csv(text: object) -> str:
    """For a cell of a CSV file. A spreadsheet reads ``=cmd|...`` as a formula; a leading quote makes it text."""
    return re.sub(r"(^|[;,])(\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])", r"\1\2'", plain(text, None))
