"""Text from records is text in every format: whatever an agent is called, nothing happens and nothing is hidden."""

import csv
import html.parser
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from markdown_it import MarkdownIt

from mtbench.scoring import score
from mtbench.scoring.figures import save_figure
from mtbench.scoring.notes import notes
from mtbench.scoring.report import FORMATS, render
from mtbench.text import for_markdown, plain
from tests.scoring.runs import made_up

HARMLESS = "somebody"

INJECTIONS = {
    "latex input": "\\input{/etc/passwd}",
    "latex input in a new line": "mine\n\\input{/etc/passwd}",
    "latex input after a carriage return": "mine\r\\input{/etc/passwd}",
    "latex input after a line separator": "mine\u2028\\input{/etc/passwd}",
    "latex write18": "\\immediate\\write18{touch owned}",
    "latex superscript notation": "^^5cinput{/etc/passwd}",
    "latex row": "a & b \\\\ \\hline",
    "latex optional argument": "[99cm] mine",
    "latex star": "*mine",
    "latex specials": "50% of $100 #1 a_b {c} ~d ^e <f> \\g",
    "latex end": "\\end{document}",
    "script": "<script>alert(1)</script>",
    "image that fails": "<img src=x onerror=alert(1)>",
    "html comment": "<!-- mine",
    "html attribute": "' onmouseover='alert(1)\" x=\"",
    "html entity": "&lt;script&gt; &#60;b&#62; &amp;",
    "html autolink": "<http://evil.example>",
    "markdown link": "[click](javascript:alert(1))",
    "markdown numbered link": "[1](http://evil.example)",
    "markdown image": "![x](http://evil.example/x.png)",
    "markdown reference": "[x]: http://evil.example",
    "markdown numbered reference": "[1]: http://evil.example",
    "markdown pipes": "a | b | c",
    "markdown escaped pipe": "a \\| b \\",
    "markdown new table": "mine\n\n| a | b |\n| - | - |\n| 1 | 2 |",
    "markdown paragraph": "mine\n\n<script>alert(1)</script>",
    "markdown heading": "# mine",
    "markdown list": "- mine",
    "markdown numbers": "1. mine",
    "markdown rule": "---",
    "markdown quotation": "> mine",
    "markdown code": "`mine` ``a``",
    "markdown emphasis": "**a** __b__ *c* _d_ ~~e~~",
    "markdown fence": "```",
    "markdown task": "[x] mine",
    "markdown formula": "$$x$$ $`y`$",
    "bare address": "https://evil.example and www.evil.example, mail me@evil.example",
    "formula": "=cmd|' /C calc'!A0",
    "formula plus": "+1+cmd",
    "formula minus": "-1+cmd",
    "formula at": "@SUM(1+1)",
    "formula after a tab": "\t=1+1",
    "formula after a space": "  =1+1",
    "formula in a new line": "mine\n=1+1",
    "formula after a quote": '",=1+1',
    "formula after a semicolon": "mine;=1+1",
    "formula in wide letters": "\uff1d1+1",
    "terminal colour": "\x1b[31mred\x1b[0m",
    "terminal clear": "\x1b[2J\x1b[Hmine",
    "terminal title": "\x1b]0;owned\x07mine",
    "terminal link": "\x1b]8;;http://evil.example\x1b\\mine\x1b]8;;\x1b\\",
    "terminal clipboard": "\x1b]52;c;b3duZWQ=\x07mine",
    "terminal in eight bits": "\x9b31mmine \x9d0;owned\x9c",
    "terminal unfinished": "mine \x1b]0;owned",
    "terminal overwriting": "evil\r\x08\x08\x7fmine\x07",
    "rich markup": "[/red]",
    "rich style": "[bold red]mine[/]",
    "rich link": "[link=http://evil.example]mine[/link]",
    "rich backslash": "mine\\",
    "mathtext": "$",
    "mathtext that is wrong": "$\\frac{$",
    "mathtext that is right": "$x^2$",
    "mathtext escaped": "\\$ and \\\\$x\\\\$",
    "mathtext and text": "a$b$c$",
    "matplotlib's hidden label": "_mine",
    "turned reading direction": "a\u202egnp.exe",
    "invisible characters": "mi\u200bne\ufeff\u00ad",
    "null": "mi\x00ne",
    "nothing": "",
    "white space": " \n\t ",
    "much": "x" * 100_000,
    "much markup": "[" * 5000,
    "other scripts": "Ωμέγα 学習 агент",
}

cases = pytest.mark.parametrize("text", INJECTIONS.values(), ids=INJECTIONS)


@cache
def scored(text):
    """Scores in which everything that a record can name is called so."""
    other = text[:100]  # a reader takes no longer names of these
    tasks = (f"{other} 1", "RepeatFirstEasy")
    runs = [
        made_up(agent, tasks=tasks, split=other, rollouts=2, success=lambda t, a, r: r == 0)
        for agent in (text, "other")
    ]
    return replace(score(runs, replicates=10), env_id=other)  # IDs are registered, but who knows by whom


def texts_of(scores):
    """The agent's name as it should be read."""
    return scores.agents[0].agent


def tokens_of(text):
    """A page as GitHub's Markdown reads it: kinds of tokens, and all its words."""
    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    flat = [token for block in page for token in [block, *(block.children or [])]]
    kinds = [token.type for token in flat if token.type not in ("text", "text_special")]
    words = [
        "".join(child.content for child in block.children)
        for block in page
        if block.type == "inline" and block.children
    ]
    return kinds, words


@cases
def test_markdown_has_no_other_structure(text):
    kinds, words = tokens_of(render(scored(text), "md"))
    expected, _ = tokens_of(render(scored(HARMLESS), "md"))
    assert kinds == expected
    assert any(texts_of(scored(text)) in cell for cell in words)
    assert not re.search(r"(?<!\\):/[/]|\bwww\.|\w@\w", render(scored(text), "md"))
    assert [kind for kind in tokens_of(f"- {for_markdown(text)}\n")[0] if kind not in _LIST] == []


_LIST = [f"{kind}_{end}" for kind in ("bullet_list", "list_item", "paragraph") for end in ("open", "close")] + [
    "inline"
]


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_endtag(self, tag):
        self.tags.append(tag)

    def handle_comment(self, data):
        self.tags.append("comment")

    def handle_data(self, data):
        self.texts.append(data)


@cases
def test_html_has_no_other_elements(text):
    page = Tags(render(scored(text), "html"))
    assert page.tags == Tags(render(scored(HARMLESS), "html")).tags
    assert texts_of(scored(text)) in page.texts


@cases
def test_notebooks_show_no_other_elements(text):
    """The page around a cell is somebody's notebook: no script, no style, nothing of the name's own."""
    harmless = Tags(scored(HARMLESS)._repr_html_())
    page = Tags(scored(text)._repr_html_())
    assert page.tags == harmless.tags
    assert texts_of(scored(text)) in page.texts
    assert not {tag[0] for tag in page.tags if isinstance(tag, tuple)} & {"script", "style", "html", "meta"}
    run = Tags(made_up(text, tasks=[text])._repr_html_())
    assert run.tags == Tags(made_up(HARMLESS, tasks=[HARMLESS])._repr_html_()).tags
    for shown in (repr(scored(text)), repr(made_up(text))):
        assert shown.isprintable()


@cases
def test_latex_has_no_other_commands(text):
    def skeleton(page):
        # What LaTeX acts on: commands, and the characters that are none of the text.
        written = re.sub(r"\\[&%$#_{}]|\\text[a-z]+\{\}|\{\}", "x", page)
        return [re.findall(r"\\[A-Za-z]+\*?|\\\\\[?\*?|[&%$#^_{}~]", line) for line in written.splitlines()]

    page = render(scored(text), "latex")
    assert skeleton(page) == skeleton(render(scored(HARMLESS), "latex"))
    assert "\\input" not in page
    for row, after in zip(page.splitlines(), page.splitlines()[1:], strict=False):
        if row.endswith("\\\\"):
            assert not after.startswith(("[", "*"))


@cases
def test_csv_has_no_formula(text):
    rows = list(csv.reader(io.StringIO(render(scored(text), "csv"))))
    assert len(rows) == len(list(csv.reader(io.StringIO(render(scored(HARMLESS), "csv")))))
    for row in rows[1:]:
        assert len(row) == 9
        assert all(float(number) is not None for number in row[6:])
        for cell in row[:6]:
            assert not re.search(r"(^|[;,])\s*[=+\-@\uff1d]", cell)
    assert rows[1][2].replace("'", "") == texts_of(scored(text)).replace("'", "")


@cases
def test_json_is_json(text):
    page = render(scored(text), "json")
    assert page.isascii()
    assert json.loads(page)["agents"][0]["agent"] == texts_of(scored(text))


@cases
def test_terminals_are_shown_text_alone(text):
    for format in FORMATS:
        page = render(scored(text), format)
        assert all(line.isprintable() for line in page.split("\n")), format
        assert len(page) < 100_000, format


FIGURES = {
    name: text for name, text in INJECTIONS.items() if re.match("math|matplot|script|latex input$|nothing|much$", name)
}


@pytest.mark.parametrize("text", FIGURES.values(), ids=FIGURES)
def test_figures_are_drawn_with_the_name_as_it_is(text, tmp_path):
    """Also where the user's matplotlib hands all text to TeX."""
    with mpl.rc_context({"svg.fonttype": "none", "text.usetex": True}):
        save_figure(scored(text), tmp_path / "x.svg")
    # Drawn here, written by somebody else's code: notebooks do this.
    with mpl.rc_context({"svg.fonttype": "none"}):
        scored(text).plot().savefig(tmp_path / "y.svg")
    assert plain(texts_of(scored(text)), 40) in svg_texts(tmp_path / "y.svg")
    figure = ElementTree.parse(tmp_path / "x.svg")
    assert plain(texts_of(scored(text)), 40) in svg_texts(tmp_path / "x.svg")
    assert not list(figure.iter("{http://www.w3.org/2000/svg}script"))


def svg_texts(path):
    return [node.text for node in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


@cases
def test_plain_text_stays_as_it_is(text):
    once = plain(text)
    assert plain(once) == once
    assert once.isprintable()
    assert len(once) <= 100


def test_plain_removes_what_terminals_obey_and_keeps_the_name():
    assert (
        plain("\x1b[31mred\x1b[0m  \x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\\tmi\u200bne") == "red link mine"
    )
    assert plain("mi\ud800ne") == "mine"
    assert plain("Ωμέγα 学習", 5) == "Ωμέγ…"
    assert plain("x" * 101) == "x" * 99 + "…"
    assert plain("x" * 101, None) == "x" * 101


def test_notes_bring_no_other_line():
    for text in INJECTIONS.values():
        assert len(notes(scored(text))) == len(notes(scored(HARMLESS)))


def test_errors_show_paths_as_they_are(tmp_path):
    folder = "\x1b[31mred [/red] [bold]mine\\"
    done = subprocess.run(
        [sys.executable, "-c", "from mtbench.cli import main; main()", "score", folder],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "500"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == f"error: {plain(folder)} is not a folder. A run is a folder with episodes.parquet and manifest.json.\n"
    )
