"""Directives that ask the package, so that pages cannot differ from it.

``{suite} ID`` shows what ``mtbench info ID`` knows; ``{help} COMMAND`` shows a command's help. Links to files of the
repository that are no pages become downloads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.testing import CliRunner

import mtbench  # noqa: F401 (it registers the IDs)
from mtbench.catalogue import short_space
from mtbench.cli import command_line
from mtbench.facts import described
from mtbench.text import for_markdown


class SuiteDirective(SphinxDirective):
    """Spaces, splits, tasks, scales, traps and departures of an ID."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes, parsed from Markdown."""
        env_id = self.arguments[0]
        rollout: Any = gym.make(env_id).unwrapped
        facts = described(env_id, rollout)
        spaces = rollout.observation_space, rollout.action_space
        rollout.close()
        return self.parse_text_to_nodes("\n\n".join(_parts(facts, *spaces)))


class HelpDirective(SphinxDirective):
    """The help of a command, as it prints it."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """One literal block."""
        shown = CliRunner().invoke(command_line(), [*self.arguments[0].split(), "--help"], env={"COLUMNS": "90"})
        if shown.exit_code != 0:
            raise self.error(shown.output)
        return [nodes.literal_block(shown.output, shown.output.strip("\n"), language="text")]


def _parts(facts: dict[str, Any], observations: gym.Space[Any], actions: gym.Space[Any]) -> Iterator[str]:
    attempts = "attempt" if facts["k"] == 1 else "attempts"
    yield f"`{facts['id']}`: {facts['k']} {attempts}, {facts['objective']}. Every attempt of a rollout plays " + (
        "the same variant." if facts["attempt_variants"] == "same" else "a new variant."
    )
    yield f"- observation: `{short_space(observations)}`\n- action: `{short_space(actions)}`"
    rows = [
        [name, len(split["tasks"]), len(split["further_tasks"]), *(_variants(v) for v in split["variants"].values())]
        for name, split in facts["splits"].items()
    ]
    header = ["split", "tasks", "further tasks", "variants drawn", "for evaluation", "for validation"]
    yield "**Splits**\n\n" + _table(header, rows)
    yield _tasks(facts)
    yield "**Scales**\n\n" + _list(f"*{name}*: {for_markdown(text)}" for name, text in facts["scales"].items())
    yield "Their ends come from:\n\n" + _list(f"*{n}*: {for_markdown(text)}" for n, text in facts["sources"].items())
    told = [*facts["warnings"], *facts["notes"], *(f"{task}: {text}" for task, text in facts["remarks"].items())]
    told += [f"{test} (test) is the same environment as {train} (train)." for test, train in facts["repeats"].items()]
    if told:
        yield "**Known traps**\n\n" + _list(map(for_markdown, dict.fromkeys(told)))
    refused: dict[str, list[str]] = {}
    for task, why in facts["refused"].items():
        refused.setdefault(why, []).append(task)
    if refused:
        texts = (f"{', '.join(tasks)}: {why}" for why, tasks in refused.items())
        yield "**Cannot be played**\n\n" + _list(map(for_markdown, texts))
    yield "**Departures from the published settings**\n\n" + _list(map(for_markdown, facts["departures"]))


def _tasks(facts: dict[str, Any]) -> str:
    """Every task with the ends of its scales."""
    ends: dict[str, None] = {}
    for task in facts["tasks"].values():
        for both in task["references"].values():
            ends |= dict.fromkeys(end["entry"] for end in both.values())
    seen = {task: share for shares in facts["seen_variants"].values() for task, share in shares.items()}
    header = ["task", "longest attempt", *ends, *(["seen in training"] if seen else [])]
    rows = []
    for name, task in facts["tasks"].items():
        values = {end["entry"]: end["value"] for both in task["references"].values() for end in both.values()}
        row = [name, f"{task['longest_attempt']:,}", *(_number(values.get(end)) for end in ends)]
        rows.append([*row, *([_number(seen.get(name))] if seen else [])])
    return "**Tasks**, and the returns that are the ends of their scales\n\n" + _table(header, rows)


def _variants(variants: dict[str, Any] | None) -> str:
    if variants is None:
        return ""
    where = f", from {variants['start']:,}" if "start" in variants else ", listed"
    return f"{variants['count']:,}{where}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.3f}".rstrip("0").rstrip(".")


def _list(items: Any) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *([for_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _offer_files(app: Sphinx, page: str, source: list[str]) -> None:
    """Let links that leave the documentation's folder lead to the files themselves."""
    folder = Path(app.srcdir, page).parent

    def offered(link: re.Match[str]) -> str:
        target = (folder / link["path"]).resolve()
        if target.is_relative_to(app.srcdir) or not target.exists():
            return link[0]  # another page; or an error that the build will tell
        inside = "/__init__.py" if target.is_dir() else ""
        return f"{link['text']}(path:{link['path']}{inside})"

    source[0] = re.sub(r"(?<!!)(?P<text>\[[^\]]+\])\((?P<path>\.\./[^)#]+)\)", offered, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_directive("suite", SuiteDirective)
    app.add_directive("help", HelpDirective)
    app.connect("source-read", _offer_files)
    return {"parallel_read_safe": True}
