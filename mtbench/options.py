"""``KEY=VALUE`` options of the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mtbench.errors import UsageError


def parsed_options(options: Iterable[str]) -> dict[str, Any]:
    """Options by key; values are JSON, anything else is a string.

    Raises:
        UsageError: One is not of the form.
    """
    parsed: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise UsageError(f"Expected KEY=VALUE, got {option!r}.")
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            if value.startswith(("[", "{")):  # a shell takes quotation marks away that are not quoted themselves
                raise UsageError(
                    f"The value of {key!r} is no JSON: {value}. Put the option in single quotes, as in "
                    "'tasks=[\"RepeatFirstEasy\"]'."
                ) from None
            parsed[key] = value
    return parsed
