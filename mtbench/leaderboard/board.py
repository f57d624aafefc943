"""Render the leaderboard: tables and a page for each submission, as Markdown and as a static site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from mtbench.errors import UsageError
from mtbench.files import replace_folder, write_atomically
from mtbench.leaderboard import markdown, site
from mtbench.leaderboard.card import SubmissionError
from mtbench.leaderboard.entries import Entry, read_entries

SUBMISSIONS, PAGES, README = "submissions", "pages", "README.md"
BEGIN, END = "<!-- tables: written by `mtbench leaderboard build` -->\n", "<!-- end of tables -->\n"

# Fewer submissions than this are rendered before other processes have started.
_FEW = 20

OnSubmission = Callable[[int, int], None]


@dataclass(frozen=True)
class _Rendered:
    """A submission, checked, scored and rendered.

    Attributes:
        entries: One for each ID and split.
        contents: Digests of its rollouts.
        markdown: Its page.
        html: Its page of the site; empty where none is made.
    """

    entries: list[Entry]
    contents: list[str]
    markdown: str
    html: str


def build(
    folder: Path, out: Path | None = None, *, jobs: int = 1, on_submission: OnSubmission | None = None
) -> list[Path]:
    """Render all submissions of a leaderboard's folder. Nothing is written if one of them is refused.

    Args:
        folder: With ``submissions``, ``badges`` and ``reruns``; ``README.md`` and ``pages`` are written.
        out: Also write the static site to this folder: a new or empty one, or one with an earlier site.
        jobs: Processes that check, score and render.
        on_submission: Called with (submissions done, submissions in all) after each one.

    Returns:
        The Markdown files written.

    Raises:
        SubmissionError: A submission is refused, or two have the same rollouts.
        UsageError: The page lacks the marks between which tables are written, or `out` holds something else.
    """
    page = folder / README
    text = page.read_text() if page.exists() else f"# Leaderboard\n\n{BEGIN}{END}"
    if BEGIN not in text or END not in text:
        raise UsageError(f"{page} lacks the lines {BEGIN.strip()} and {END.strip()}, between which tables are written.")
    if out is not None:
        site.check_folder(out)
    paths = sorted((folder / SUBMISSIONS).iterdir())
    seen: dict[str, tuple[Path, bool]] = {}
    entries: list[Entry] = []
    pages: dict[Path, str] = {}
    drawn: dict[str, str] = {}
    for done, (path, each) in enumerate(zip(paths, _all(folder, paths, out is not None, jobs), strict=True), 1):
        _check_distinct(path, each, seen)
        entries += each.entries
        pages[folder / PAGES / f"{path.name}.md"] = each.markdown
        drawn[path.name] = each.html
        if on_submission is not None:
            on_submission(done, len(paths))
    head, _, rest = text.partition(BEGIN)
    pages[page] = f"{head}{BEGIN}{markdown.tables(entries, PAGES)}{END}{rest.partition(END)[2]}"
    if out is not None:
        replace_folder(out, partial(site.write, entries=entries, pages=drawn))
    for written, content in pages.items():
        _write(written, content)
    return list(pages)


def _all(folder: Path, paths: Sequence[Path], with_html: bool, jobs: int) -> Iterator[_Rendered]:
    """The submissions, in order."""
    render = partial(_rendered, folder, with_html)
    if jobs == 1 or len(paths) < _FEW:
        yield from map(render, paths)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(render, paths, chunksize=4)


def _rendered(folder: Path, with_html: bool, path: Path) -> _Rendered:
    entries, contents = read_entries(folder, path)
    html = site.submission_page(entries) if with_html else ""
    return _Rendered(entries, contents, markdown.submission_page(entries), html)


def _check_distinct(path: Path, rendered: _Rendered, seen: dict[str, tuple[Path, bool]]) -> None:
    """Check that nobody submitted these rollouts before, and remember them. Scripted agents may be alike."""
    scripted = rendered.entries[0].card.flags["scripted"]
    for content in rendered.contents:
        other, alike = seen.setdefault(content, (path, scripted))
        if other != path and not (scripted and alike):
            raise SubmissionError(f"{path} has the same rollouts as {other}.")


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
