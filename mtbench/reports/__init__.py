"""Reports for readers: one self-contained HTML page, and the same as Markdown, of one or more evaluations.

:mod:`~mtbench.reports.content` says what a report holds, :mod:`~mtbench.reports.figures` draws, and
:mod:`~mtbench.reports.pages` writes both pages. Names come from records, so every page escapes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtbench.errors import UsageError
from mtbench.files import replace_folder
from mtbench.records import Run
from mtbench.reports.content import build
from mtbench.reports.curves import Curve
from mtbench.reports.figures import Figure
from mtbench.reports.pages import as_html, as_markdown

HTML, MARKDOWN, FIGURES = "index.html", "report.md", "figures"


def write_report(
    runs: Sequence[Run], curves: Sequence[Curve], out: Path, *, seed: int = 0, interval: str = "jackknife"
) -> Path:
    """Write a report: ``index.html``, ``report.md``, and every figure as PNG and SVG in ``figures``.

    Args:
        runs: Evaluations, of one or more environments.
        curves: Of training runs.
        out: A new or empty folder, or one with an earlier report, which is replaced.
        seed: Seeds bootstraps.
        interval: As for :func:`mtbench.score`.

    Returns:
        The HTML page.

    Raises:
        UsageError: The folder holds something else than a report.
        RecordError: Runs cannot be scored; the message says why.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARKDOWN).exists())):
        raise UsageError(f"{out} holds something else than a report: give another folder with --out.")
    sections = build(runs, curves, seed=seed, interval=interval)

    def fill(folder: Path) -> None:
        (folder / FIGURES).mkdir()
        for figure in (block for section in sections for block in section.blocks if isinstance(block, Figure)):
            (folder / FIGURES / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
            (folder / FIGURES / f"{figure.name}.png").write_bytes(figure.png)
        (folder / HTML).write_text(as_html(sections), encoding="utf-8")
        (folder / MARKDOWN).write_text(as_markdown(sections, FIGURES), encoding="utf-8")

    replace_folder(out, fill)
    return out / HTML
