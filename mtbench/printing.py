"""Print tables, sentences and progress for the commands; names are plain text, never markup."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from mtbench.text import plain

if TYPE_CHECKING:
    from rich.progress import Progress

# The longest path or message that is shown whole.
_LONGEST = 4096

_err = Console(stderr=True, highlight=False)


def counted(number: int, noun: str) -> str:
    """A number and its noun."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def shown_path(path: Path | str) -> str:
    """A path as it can be shown."""
    return plain(str(path), _LONGEST)


def say(line: str, indent: int = 0) -> None:
    """Print one line; on a terminal it breaks between words, in a pipe never.

    Args:
        line: The line.
        indent: How far the lines after a break move to the right.
    """
    if sys.stdout.isatty():
        width = max(40, shutil.get_terminal_size().columns)
        line = textwrap.fill(
            line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
    sys.stdout.write(line + "\n")


def say_json(content: Any) -> None:
    """Print one JSON value, indented."""
    sys.stdout.write(json.dumps(content, indent=2, allow_nan=False) + "\n")


def tell(message: str) -> None:
    """Print a line on the error stream, so that the output stays parseable."""
    _err.print(Text(plain(message, _LONGEST)), soft_wrap=True)


def tell_error(message: str) -> None:
    """Print what went wrong on one line of the error stream."""
    line = plain(" ".join(message.split()), _LONGEST)
    _err.print(Text.assemble(("error:", "red"), " ", line), soft_wrap=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table with a line for each row; nothing is cut or broken, however narrow the terminal.

    Args:
        header: The columns' names.
        rows: Their cells.
        right: Columns that are aligned to the right.
    """
    lines = [list(header), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, line, widths, strict=True)
        ]
        sys.stdout.write(f" {'  '.join(cells)}".rstrip() + "\n")


def progress_bar(unit: str) -> Progress:
    """A progress bar on the error stream, removed when done. It is shown on terminals only."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeElapsedColumn(),
        console=_err,
        transient=True,
        disable=not _err.is_terminal,
    )


def counting(progress: Progress, name: str) -> Callable[[int, int], None]:
    """A bar of its own in a progress display: what to call with (done, in all)."""
    bar = progress.add_task(name, total=None)
    return lambda done, total: progress.update(bar, completed=done, total=total)
