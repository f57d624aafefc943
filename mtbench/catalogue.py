"""``mtbench list`` and ``mtbench info`` as text; :mod:`mtbench.facts` has their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

from mtbench import facts
from mtbench.printing import print_table, say
from mtbench.rollout import MetaRollout
from mtbench.suite import Split


def print_list() -> None:
    """Print all IDs, in at most 80 columns."""
    listed = facts.listed()
    rows = [
        [row["id"], f"{row['tasks']['train']}/{row['tasks']['test']}", str(row["k"]), row["objective"], row["summary"]]
        for row in listed
    ]
    print_table(["ID", "tasks", "k", "objective", "what it is"], rows)
    say("")
    say("tasks: of the train and the test split. k: attempts in a rollout.")
    say("Packages:")
    needed: dict[str, list[str]] = {}
    versions: dict[str, str | None] = {}
    for row in listed:
        versions |= row["packages"]
        for name in row["packages"]:
            needed.setdefault(name, []).append(row["id"])
    for name, version in versions.items():
        say(f"  {name} {version}" if version else f"  {name} is not installed; for {', '.join(needed[name])}", 4)


def print_info(rollout: MetaRollout, described: Mapping[str, Any]) -> None:
    """Print a description of an environment.

    Args:
        rollout: The environment; its split's tasks are named.
        described: Its description by :func:`mtbench.facts.described`.
    """
    suite = rollout.suite
    _entry(f"{described['id']}: {suite.title}, k = {rollout.k} attempt{'s' * (rollout.k > 1)}, {rollout.objective}")
    _entry(f"observation   {short_space(rollout.observation_space)}")
    _entry(f"action        {short_space(rollout.action_space)}")
    _entry(f"variants      {suite.attempt_variants} in every attempt")
    for split in suite.splits.values():
        _entry(f"{split.name:13} {_short_split(split)}")
    default = described["default_split"]
    _entry(f"defaults      gym.make plays {default['make']}, mtbench evaluate plays {default['evaluate']}")
    say("")
    _print_tasks(rollout, described)
    for task, twin in suite.repeats.items():
        _sentence(f"{task} (test) is the same environment as {twin} (train): scores are given with and without it.")
    for task in [*rollout.tasks, *rollout.split.extra_tasks]:
        if task in described["remarks"]:
            _sentence(f"{task}: {described['remarks'][task]}")
    for why in dict.fromkeys(suite.refused.values()):
        tasks = [task for task, reason in suite.refused.items() if reason == why]
        _sentence(f"Cannot be played: {', '.join(tasks)}: {why}.")
    _print_references(described)
    for title, sentences in (
        ("Warnings", described["warnings"]),
        ("Notes", described["notes"]),
        ("Departures from the published settings", described["departures"]),
    ):
        _print_section(title, sentences)


def _entry(line: str) -> None:
    say(line, indent=14)


def _sentence(line: str) -> None:
    say(line, indent=2)


def _print_section(title: str, sentences: Sequence[str]) -> None:
    if sentences:
        say(f"{title}:")
    for sentence in sentences:
        _sentence(f"- {sentence}")


def _print_tasks(rollout: MetaRollout, described: Mapping[str, Any]) -> None:
    """Print the tasks played and the further ones, with their step limits, references and shares of seen variants."""
    split, played = rollout.split, rollout.tasks
    further = [task for task in split.extra_tasks if task not in played]
    seen = described["seen_variants"].get(split.name, {})
    entries = _entries(described, [*played, *further])
    header = ["task", "max steps", *entries, *(["seen in training"] if seen else [])]

    def row(task: str) -> list[str]:
        known = described["tasks"][task]["references"].values()
        values = {end["entry"]: end["value"] for both in known for end in both.values()}
        numbers = [f"{values[entry]:.3f}" if entry in values else "-" for entry in entries]
        shares = [f"{seen[task]:.2f}" if task in seen else "-"] if seen else []
        return [task, str(described["tasks"][task]["longest_attempt"]), *numbers, *shares]

    others = [name for name in rollout.suite.splits if name != split.name]
    _sentence(f"Tasks of the {split.name} split (for others: --split {' or '.join(others)}):")
    print_table(header, [row(task) for task in played], right=header[1:])
    if further:
        _sentence("Further tasks, played only when named with tasks=:")
        print_table(header, [row(task) for task in further], right=header[1:])
    if seen:
        _sentence("seen in training: the share of the task's evaluation variants that repeat one of training.")


def _print_references(described: Mapping[str, Any]) -> None:
    for scale, description in described["scales"].items():
        _sentence(f"scale {scale}: {description}")
    for entry in _entries(described, described["tasks"]):
        if entry in described["sources"]:
            _sentence(f"{entry}: {described['sources'][entry]}")


def _entries(described: Mapping[str, Any], tasks: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """The references that some of the tasks have, in the order of the scales and their ends."""
    found: dict[str, None] = {}
    for scale in described["scales"]:
        for end in ("low", "high"):
            for task in tasks:
                both = described["tasks"][task]["references"].get(scale)
                if both:
                    found.setdefault(both[end]["entry"])
    return list(found)


def _short_split(split: Split) -> str:
    more = f" ({len(split.extra_tasks)} more by name)" if split.extra_tasks else ""
    return f"{len(split.tasks)} tasks{more}; variants {split.variants}, for evaluation {split.evaluation}"


def short_space(space: gym.Space[Any]) -> str:
    """A space on one line."""
    if isinstance(space, gym.spaces.Dict):
        return f"Dict({', '.join(f'{key}: {short_space(part)}' for key, part in space.spaces.items())})"
    if isinstance(space, gym.spaces.Box):
        return f"Box{space.shape} {space.dtype}, [{space.low.min():g}, {space.high.max():g}]"
    return " ".join(str(space).split())
