"""What a submitter says of an agent: ``card.toml``. Everything else of a submission is computed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
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
        SubmissionError: It is missing, too large, not TOML, or says something that a card does not say.
    """
    content = read_regular(path, _MOST_BYTES, SubmissionError)
    try:
        given = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise SubmissionError(f"{path} is not valid TOML: {shown(str(error))}") from None
    known = ["authors", *TEXTS, *FLAGS]
    for key in given:
        if key not in known:
            raise SubmissionError(f"{path}: a card has no {shown(key)}; it has {', '.join(known)}.")
    texts = {key: _text(path, given, key) for key in TEXTS}
    flags = {}
    for key, what in FLAGS.items():
        flags[key] = given.get(key, False)
        if not isinstance(flags[key], bool):
            raise SubmissionError(f"{path}: {key} should be true or false ({what}), it is {shown(flags[key])}.")
    return Card(texts.pop("name"), _authors(path, given.get("authors")), texts, flags)


def _text(path: Path, given: Mapping[str, Any], key: str) -> str:
    most, needed, what = TEXTS[key]
    value = given.get(key, "")
    if not isinstance(value, str) or len(value) > most or (needed and not value.strip()):
        raise SubmissionError(f"{path}: {key} should be text of 1 to {most} characters ({what}), it is {shown(value)}.")
    _refuse_markup(path, key, value)
    if value and key in ("link", "code") and not _URL.fullmatch(value):
        raise SubmissionError(f"{path}: {key} should be an address that begins with https://, it is {shown(value)}.")
    return value


def _authors(path: Path, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_AUTHORS:
        raise SubmissionError(f"{path}: authors should be a list of 1 to {_MOST_AUTHORS} names, it is {shown(value)}.")
    for name in value:
        if not isinstance(name, str) or not name.strip() or len(name) > 100:
            raise SubmissionError(f"{path}: an author should be a name of 1 to 100 characters, not {shown(name)}.")
        _refuse_markup(path, "authors", name)
    return tuple(value)


def _refuse_markup(path: Path, key: str, value: str) -> None:
    if not value.isprintable():
        raise SubmissionError(f"{path}: {key} holds line breaks, control or invisible characters: {shown(value)}.")
    found = re.search(r"[<>`|\\]|\]\(|!\[|&[#a-z]", value)
    if found:
        raise SubmissionError(f"{path}: {key} holds markup ({shown(found[0])}): write plain text.")


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
