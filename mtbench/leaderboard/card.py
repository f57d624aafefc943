"""What a submitter says of an agent: ``card.toml``. Everything else of a submission is computed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtbench.errors import UsageError
from mtbench.untrusted import read_regular, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CARD = "card.toml"

_MOST_BYTES, _MOST_AUTHORS = 16_384, 50
_URL = re.compile(r"https://[A-Za-z0-9.-]+(/[A-Za-z0-9._~/%+=&?#:@-]*)?")

#: The texts of a card: their greatest length, whether they must be there, and what they say.
TEXTS: dict[str, tuple[int, bool, str]] = {
    "name": (60, True, "the agent's name, as in the manifests of its runs"),
    "description": (1000, True, "what it is, in a few sentences"),
    "trained_on": (300, True, "which tasks, splits and data it was trained on"),
    "training_time": (100, True, "for how long, such as: 20 hours, 100 M steps"),
    "hardware": (100, True, "on what"),
    "link": (200, False, "a page or paper, https://..."),
    "code": (200, False, "its code, https://..."),
}
#: The flags of a card.
FLAGS: dict[str, str] = {
    "label_exposed": "whether it is told which task it plays",
    "scripted": "whether it is written by hand, without training seeds",
    "few_seeds": "whether it has fewer than 3 training seeds; its row says so",
}


class SubmissionError(UsageError):
    """A submission is refused; the message says why."""


@dataclass(frozen=True)
class Card:
    """A checked card. Its texts are printable lines without markup.

    Attributes:
        name: The agent's.
        authors: Their names.
        texts: The other texts of :data:`TEXTS`; those that were left out are empty.
        flags: All of :data:`FLAGS`.
    """

    name: str
    authors: tuple[str, ...]
    texts: dict[str, str]
    flags: dict[str, bool]


def read_card(path: Path) -> Card:
    """Read and check a card.

    Raises:
        SubmissionError: It is missing, too large, not TOML, or says something that a card does not say; the message has
            a line for each.
    """
    content = read_regular(path, _MOST_BYTES, SubmissionError)
    try:
        given = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise SubmissionError(f"{path} is not valid TOML: {shown(str(error))}") from None
    reasons = [f"{path}: {reason}" for reason in _reasons_against(given)]
    if reasons:
        raise SubmissionError("\n".join(reasons))
    texts = {key: given.get(key, "") for key in TEXTS}
    flags = {key: given.get(key, False) for key in FLAGS}
    return Card(texts.pop("name"), tuple(given["authors"]), texts, flags)


def _reasons_against(given: Mapping[str, Any]) -> Iterator[str]:
    """Everything that is wrong with a card."""
    known = ["authors", *TEXTS, *FLAGS]
    for key in given:
        if key not in known:
            yield f"a card has no {shown(key)}; it has {', '.join(known)}."
    for key in TEXTS:
        yield from _reasons_against_text(key, given.get(key, ""))
    for key, what in FLAGS.items():
        if not isinstance(given.get(key, False), bool):
            yield f"{key} should be true or false ({what}), it is {shown(given[key])}."
    authors = given.get("authors")
    if not isinstance(authors, list) or not 1 <= len(authors) <= _MOST_AUTHORS:
        yield f"authors should be a list of 1 to {_MOST_AUTHORS} names, it is {shown(authors)}."
        return
    for name in authors:
        if not isinstance(name, str) or not name.strip() or len(name) > 100:
            yield f"an author should be a name of 1 to 100 characters, not {shown(name)}."
        else:
            yield from _markup("authors", name)


def _reasons_against_text(key: str, value: object) -> Iterator[str]:
    most, needed, what = TEXTS[key]
    if not isinstance(value, str) or len(value) > most or (needed and not value.strip()):
        yield f"{key} should be text of 1 to {most} characters ({what}), it is {shown(value)}."
        return
    yield from _markup(key, value)
    if value and key in ("link", "code") and not _URL.fullmatch(value):
        yield f"{key} should be an address that begins with https://, it is {shown(value)}."


def _markup(key: str, value: str) -> Iterator[str]:
    if not value.isprintable():
        yield f"{key} holds line breaks, control or invisible characters: {shown(value)}."
    found = re.search(r"[<>`|\\]|\]\(|!\[|&[#a-z]", value)
    if found:
        yield f"{key} holds markup ({shown(found[0])}): write plain text."


def template(name: str) -> str:
    """A card to be filled in."""
    return _written(name, lambda key, what: "")


def asked_for(name: str, ask: Callable[[str, str], str]) -> str:
    """A card as somebody answers for it; :func:`read_card` checks what was said.

    Args:
        name: The agent's.
        ask: Called with a question and the answer that stands without another one.
    """
    return _written(name, lambda key, what: ask(f"{key.replace('_', ' ')} ({what})", ""))


def _written(name: str, answer: Callable[[str, str], str]) -> str:
    lines = ["# Plain text in every line; nobody enters a score.", ""]
    for key, (most, needed, what) in TEXTS.items():
        said = f"{what}; at most {most} characters" + ("" if needed else "; may stay empty")
        lines += [f"# {said}", f"{key} = {_quoted(name if key == 'name' else answer(key, said))}"]
    authors = answer("authors", "everybody's name, with commas between")
    lines += ["# everybody's name", f"authors = [{', '.join(_quoted(each.strip()) for each in authors.split(','))}]"]
    for key, what in FLAGS.items():
        yes = answer(key, f"{what}; y or n").strip().lower() in ("y", "yes", "true")
        lines += [f"# {what}", f"{key} = {str(yes).lower()}"]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    """As TOML has it."""
    return json.dumps(value, ensure_ascii=False)
