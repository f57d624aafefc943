"""A report as one HTML page that asks for nothing else, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from mtbench.reports.content import Block, Section
from mtbench.reports.figures import Figure
from mtbench.scoring.report import markdown_table
from mtbench.scoring.tables import Table
from mtbench.text import for_html, for_markdown

_TITLE = "mtbench report"

# Wide tables and figures scroll inside their own frame, so that the page itself never does, on a telephone either.
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:76rem;padding:1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.25rem;border-bottom:2px solid #ddd;margin-top:2.5rem}h3{font-size:1rem}
nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:0;list-style:none}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left;position:sticky;left:0;background:#fff}
tbody tr:hover td{background:#f2f6fa}
figure{margin:1.2rem 0}figure svg{display:block;max-width:max(100%,30rem);height:auto}
figcaption{font-size:.9rem;color:#555}
li{max-width:60rem}
"""
_DARK = """:root{color-scheme:light dark}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161a1d}
td:first-child,th:first-child{background:#161a1d}tbody tr:hover td{background:#20262b}td,th,h2{border-color:#3a4045}
figure svg{background:#fff;border-radius:6px}figcaption{color:#aaa}a{color:#8cc8ff}}
"""


def as_html(sections: Sequence[Section]) -> str:
    """The page."""
    links = "".join(f'<li><a href="#s{i}">{for_html(s.title)}</a></li>' for i, s in enumerate(sections))
    body = [f"<nav><ul>{links}</ul></nav>\n"]
    for i, section in enumerate(sections):
        blocks = "".join(map(html_block, section.blocks))
        body.append(f'<section id="s{i}">\n<h2>{for_html(section.title)}</h2>\n{blocks}</section>\n')
    return html_page(_TITLE, "".join(body))


def html_page(title: str, body: str, *, scripts: bool = False, style: str = "") -> str:
    """A page that fetches nothing, whatever a name in it may hold.

    Args:
        title: Its title and first heading, as text.
        body: What follows, as HTML.
        scripts: Whether scripts that stand in the page itself may run. Their tables have no dark colours.
        style: More style sheets.
    """
    allowed = "script-src 'unsafe-inline' 'unsafe-eval' blob:; " if scripts else ""
    policy = f"default-src 'none'; {allowed}style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{for_html(title)}</title>\n<style>{_STYLE}{style}{'' if scripts else _DARK}</style>\n</head>\n"
        f"<body>\n<h1>{for_html(title)}</h1>\n{body}</body>\n</html>\n"
    )


def html_block(block: Block) -> str:
    """A table, figure or list under its title."""
    if isinstance(block, Table):
        head = "".join(f"<th>{for_html(cell)}</th>" for cell in block.header)
        body = "\n".join("<tr>" + "".join(f"<td>{for_html(cell)}</td>" for cell in row) + "</tr>" for row in block.rows)
        inside = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
        return f'<h3>{for_html(block.title)}</h3>\n<div class="wide">{inside}</div>\n'
    if isinstance(block, Figure):
        svg = block.svg.replace("<svg ", f'<svg role="img" aria-label="{for_html(block.caption)}" ', 1)
        caption = f"<figcaption>{for_html(block.caption)}</figcaption>"
        return f'<figure><div class="wide">{svg}</div>{caption}</figure>\n'
    items = "\n".join(f"<li>{for_html(sentence)}</li>" for sentence in block.sentences)
    return f"<ul>\n{items}\n</ul>\n"


def as_markdown(sections: Sequence[Section], folder: str) -> str:
    """The same; figures are PNG files in a folder beside it."""
    parts = [f"# {_TITLE}\n"]
    for section in sections:
        parts.append(f"## {for_markdown(section.title)}\n")
        for block in section.blocks:
            if isinstance(block, Table):
                parts.append(f"### {for_markdown(block.title)}\n\n{markdown_table(block)}")
            elif isinstance(block, Figure):
                parts.append(f"![{for_markdown(block.caption)}]({folder}/{block.name}.png)\n")
            else:
                parts.append("".join(f"- {for_markdown(sentence)}\n" for sentence in block.sentences))
    return "\n".join(parts)
