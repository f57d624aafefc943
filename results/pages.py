"""Fill in what the Markdown pages state from committed data. Run it after a measurement; a test compares the two.

    python results/pages.py

A page marks each number or table with where it comes from, a file beside the page, and this script writes the text
between the marks (as comments, they are invisible to readers):

    <!-- from speed.csv -->              the whole CSV, as a table
    <!-- from speed.csv reach ratio -->  one cell: the row whose first cell is "reach", the column "ratio"
    <!-- from tables.py atari -->        what the function `atari` of that script returns; more words are its arguments
    ... <!-- end -->

A number's mark stands within a line: at the beginning of one, Markdown would end the paragraph there.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pandas as pd
from markdown_table import table

from mtbench.records import write_atomically

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"(<!-- from (\S+\.(?:csv|py))(.*?) -->)(.*?)(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Every Markdown page that readers meet."""
    found = [path for name in ("docs", "results", "leaderboards") for path in sorted((ROOT / name).rglob("*.md"))]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(path for path in found if "_build" not in path.parts)]


@cache
def script(path: Path) -> ModuleType:
    """A script as a module; it may import what lies beside it, and beside this one."""
    spec = importlib.util.spec_from_file_location("_".join(path.relative_to(ROOT).with_suffix("").parts), path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    before = list(sys.path)
    sys.path.extend([str(ROOT / "results"), str(path.parent)])
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before  # else what lies there would be taken for a package of its name, such as coverage
    return module


def readable(cell: str) -> str:
    """A cell as it is, but for commas between the thousands."""
    whole = re.fullmatch(r"(-?)(\d{4,})(\.\d+)?", cell)
    return cell if whole is None else f"{whole[1]}{int(whole[2]):,}{whole[3] or ''}"


def from_csv(path: Path, row: str = "", column: str = "value") -> str:
    """A cell, or without a row all of them."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    if not row:
        return table(list(frame.columns), [list(map(readable, row)) for row in frame.to_numpy().tolist()])
    (cell,) = frame.loc[frame.iloc[:, 0] == row, column]
    return readable(cell)


def stated(page: Path, file: str, arguments: list[str]) -> str:
    """The text of one mark."""
    path = (page.parent / file).resolve()
    text = from_csv(path, *arguments) if path.suffix == ".csv" else getattr(script(path), arguments[0])(*arguments[1:])
    return f"\n{text}" if "\n" in text else text


def renewed(page: Path) -> str:
    """A page with every marked text written anew."""
    return MARKED.sub(lambda m: m[1] + stated(page, m[2], shlex.split(m[3])) + m[5], page.read_text())


if __name__ == "__main__":
    for each in pages():
        text = renewed(each)
        if text != each.read_text():
            write_atomically(each, lambda temporary, text=text: temporary.write_text(text))
