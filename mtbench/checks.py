"""The checks that a run must pass, both before it is written and after it is read.

Records are untrusted. No check allocates memory by a size that the record states. Suites and IDs are looked
up among the registered ones and never imported because a record names them. The cases of the evaluation are computed
again and compared with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from mtbench import registration
from mtbench.audit import CONDITIONS, NORMAL, audit_conditions, condition_of
from mtbench.cases import EVALUATION_VERSION, USES, case_variants, is_use
from mtbench.errors import RecordError, UsageError, unknown_name_error
from mtbench.registration import Row
from mtbench.rollout import AttemptReset, Objective
from mtbench.suite import Suite, Task
from mtbench.untrusted import MAX_NAME, is_name, shown

if TYPE_CHECKING:
    import pandas as pd

# Ten times the largest evaluation anybody has published with this package.
MAX_ATTEMPTS = 1_000_000
MAX_K = 1000

_MAX_INT = 2**63 - 1

# The keys that every manifest has, and their exact types: a bool does not pass as an int.
_TYPES: dict[str, tuple[type, ...]] = {
    "env_id": (str,),
    "env_kwargs": (dict,),
    "suite": (str,),
    "split": (str,),
    "tasks": (list,),
    "k": (int,),
    "objective": (str,),
    "rollouts_per_task": (int,),
    "agent": (str,),
    "privileged": (bool,),
    "task_label_exposed": (bool,),
    "train_seed": (int, NoneType),
    "step": (int, NoneType),
    "evaluation_version": (int,),
    "episodes_sha256": (str,),
}


def _is_count(value: object, most: int = _MAX_INT) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e100


def _is_scales(value: object) -> bool:
    return value is None or (isinstance(value, dict) and all(map(_is_number, value.values())))


def _is_tasks(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(is_name, value)) and len(set(value)) == len(value)


# The environment arguments that a file may give: a description for messages, and a check of the value.
_ARGUMENTS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "split": ("a name", is_name),
    "tasks": ("names, none twice, or null", lambda value: value is None or _is_tasks(value)),
    "k": (f"an integer from 1 to {MAX_K}", lambda value: _is_count(value, MAX_K)),
    "objective": (" or ".join(get_args(Objective)), lambda value: value in get_args(Objective)),
    "reward_scales": ("numbers by task, or null", _is_scales),
    "clip_rewards": ("true or false", lambda value: isinstance(value, bool)),
    "attempt_reset": (" or ".join(get_args(AttemptReset)), lambda value: value in get_args(AttemptReset)),
    "expose_task_label": ("true or false", lambda value: isinstance(value, bool)),
    "max_steps": ("an integer of at least 1, or null", lambda value: value is None or _is_count(value)),
}


def registered_environment(env_id: str, arguments: Mapping[str, Any]) -> tuple[Row, Suite]:
    """The registered row and suite of an environment that a file describes, its arguments checked.

    Nothing is made or imported but the suite's own module, which the registry names, not the file.

    Args:
        env_id: A registered ID, with or without the ``mtbench:`` prefix.
        arguments: Further arguments of the environment.

    Raises:
        UsageError: The ID is not registered, or an argument is unknown or of a wrong type.
    """
    if not is_name(env_id):
        raise UsageError(f"env_id should be a registered ID, it is {shown(env_id)}.")
    row = registration.find(env_id)
    suite = row.suite
    for name, value in arguments.items():
        if name not in _ARGUMENTS:
            raise unknown_name_error("environment argument", name[:MAX_NAME], list(_ARGUMENTS), f"runs of {row.id}")
        what, allowed = _ARGUMENTS[name]
        if not allowed(value):
            raise UsageError(f"the environment's argument {name} should be {what}, it is {shown(value)}.")
    for task in arguments.get("reward_scales") or {}:
        if task not in suite.tasks:
            raise unknown_name_error(
                "task", task[:MAX_NAME], list(suite.tasks), f"`reward_scales` of suite {suite.name!r}"
            )
    return row, suite


def check_manifest(path: Path, manifest: Mapping[str, Any]) -> Suite:
    """Check everything a manifest says about its run, and return the run's suite.

    Args:
        path: For messages.
        manifest: As JSON holds it.

    Raises:
        RecordError: Something is missing, of a wrong type, out of bounds, unregistered or contradictory.
    """
    for key, kinds in _TYPES.items():
        if key not in manifest:
            raise RecordError(f"{path} lacks {key}.")
        if type(manifest[key]) not in kinds:
            what = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            raise RecordError(f"{path}: {key} should be of type {what}, it is {shown(manifest[key])}.")
    for key in ("env_id", "suite", "split", "objective", "agent"):
        if not is_name(manifest[key]):
            raise RecordError(
                f"{path}: {key} should be a name of 1 to {MAX_NAME} printable characters, it is {shown(manifest[key])}."
            )
    for key in ("train_seed", "step"):
        if manifest[key] is not None and not 0 <= manifest[key] <= _MAX_INT:
            raise RecordError(f"{path}: {key} should be null or at least 0, it is {shown(manifest[key])}.")
    if not _is_tasks(manifest["tasks"]):
        raise RecordError(f"{path}: tasks should be names, none twice, they are {shown(manifest['tasks'])}.")
    _check_size(path, len(manifest["tasks"]), manifest["rollouts_per_task"], manifest["k"])
    if manifest["objective"] not in get_args(Objective):
        raise RecordError(f"{path}: objective should be k-shot or k-episode, it is {shown(manifest['objective'])}.")
    cases = manifest.get("cases", "evaluation")
    if not isinstance(cases, str) or not is_use(cases):
        raise RecordError(f"{path}: cases should be {' or '.join(USES)}, it is {shown(cases)}.")
    if condition_of(manifest) not in CONDITIONS:
        raise RecordError(
            f"{path}: condition should be {' or '.join(CONDITIONS)}, it is {shown(manifest['condition'])}."
        )
    if not isinstance(manifest.get("actions_sha256", ""), str):
        raise RecordError(f"{path}: actions_sha256 should be text, it is {shown(manifest['actions_sha256'])}.")
    _check_version(path, manifest["evaluation_version"])
    try:
        row, suite = registered_environment(manifest["env_id"], manifest["env_kwargs"])
        _check_tasks(suite, manifest["split"], manifest["tasks"])
        _check_condition(suite, manifest)
    except UsageError as error:
        raise RecordError(f"{path}: {error}") from None
    _check_agreement(path, manifest, row, suite)
    return suite


def _check_size(path: Path, tasks: int, rollouts: int, k: int) -> None:
    if not _is_count(rollouts, MAX_ATTEMPTS) or not _is_count(k, MAX_K) or tasks * rollouts * k > MAX_ATTEMPTS:
        raise RecordError(
            f"{path}: {tasks} tasks, rollouts_per_task = {shown(rollouts)} and k = {shown(k)} are out of bounds: each "
            f"should be at least 1, k at most {MAX_K}, and their product at most {MAX_ATTEMPTS:,} attempts."
        )


def _check_version(path: Path, version: int) -> None:
    if version != EVALUATION_VERSION:
        raise RecordError(
            f"{path}: evaluation_version is {shown(version)}, this mtbench plays version {EVALUATION_VERSION}. The "
            "versions have different cases, so their scores cannot be compared: evaluate the agent again."
        )


def _check_tasks(suite: Suite, split: str, tasks: list[str]) -> None:
    offered = [*suite.split(split).tasks, *suite.split(split).extra_tasks]
    for task in tasks:
        if task not in offered:
            raise unknown_name_error("task", task, offered, f"split {split!r} of suite {suite.name!r}")


def _check_condition(suite: Suite, manifest: Mapping[str, Any]) -> None:
    condition = condition_of(manifest)
    if condition != NORMAL and condition not in audit_conditions(suite, manifest["k"]):
        raise UsageError(f"the condition {condition} is not one of the audit of suite {suite.name!r}.")


def _check_agreement(path: Path, manifest: Mapping[str, Any], row: Row, suite: Suite) -> None:
    """Check the manifest's settings against those that its ID and arguments give."""
    arguments = {"split": "train", "k": 1, "objective": "k-episode", "expose_task_label": False}
    arguments |= {**row.kwargs, **manifest["env_kwargs"]}
    implied = {
        "suite": suite.name,
        "split": arguments["split"],
        "tasks": arguments.get("tasks") or list(suite.split(manifest["split"]).tasks),
        "k": arguments["k"],
        "objective": arguments["objective"],
        "task_label_exposed": arguments["expose_task_label"],
    }
    for key, value in implied.items():
        if manifest[key] != value:
            raise RecordError(
                f"{path}: {key} is {shown(manifest[key])}, but env_id {row.id} with its env_kwargs plays "
                f"{shown(value)}."
            )


def check_episodes(path: Path, episodes: pd.DataFrame, manifest: Mapping[str, Any], suite: Suite) -> None:
    """Check that every attempt is there once, is of the evaluation's fixed cases, and has possible numbers.

    Args:
        path: For messages.
        episodes: Columns and dtypes as in :data:`mtbench.records.COLUMNS`.
        manifest: Checked by :func:`check_manifest`.
        suite: The run's suite, as :func:`check_manifest` returns it.

    Raises:
        RecordError: Something is missing, doubled, foreign or impossible; the message names it.
    """
    for key in ("suite", "split", "agent"):
        found = set(episodes[key].unique())
        if found != {manifest[key]}:
            raise RecordError(
                f"{path}: column {key!r} holds {shown(sorted(found))}, the manifest says {shown(manifest[key])}."
            )
    for key in ("train_seed", "step"):
        stated = manifest[key]
        if not (episodes[key].isna().all() if stated is None else (episodes[key] == stated).fillna(False).all()):
            raise RecordError(f"{path}: column {key!r} does not hold the manifest's {stated!r} throughout.")
    places = _places(path, episodes, manifest)
    task = places // (manifest["rollouts_per_task"] * manifest["k"])
    _check_numbers(path, episodes, task, [suite.tasks[name] for name in manifest["tasks"]], suite)
    _check_successes(path, episodes, suite)
    _check_limit(path, episodes, manifest)
    try:
        fixed = _variants(suite, manifest).reshape(-1)[places]
    except UsageError as error:
        raise RecordError(f"{path}: {error}") from None
    variants = episodes["variant"].to_numpy()
    wrong = np.flatnonzero(variants != fixed)
    if len(wrong):
        raise RecordError(
            f"{path}: {_where(episodes, wrong[0])} was played on variant {variants[wrong[0]]}, which is not the one of "
            "this evaluation's fixed cases."
        )


def _places(path: Path, episodes: pd.DataFrame, manifest: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Each row's place in the order of tasks, rollouts and attempts; every place is taken once."""
    import pandas as pd

    tasks, rollouts, k = manifest["tasks"], manifest["rollouts_per_task"], manifest["k"]
    present = set(episodes["task"].unique())
    missing = [task for task in tasks if task not in present]
    if missing:
        raise RecordError(f"{path}: no rows for {', '.join(missing)}.")
    foreign = sorted(present - set(tasks))
    if foreign:
        raise RecordError(f"{path}: rows for tasks the manifest does not list: {', '.join(foreign[:10])}.")
    task = pd.Index(tasks).get_indexer(pd.Index(episodes["task"]))
    rollout, attempt = (episodes[key].to_numpy(dtype=np.int64) for key in ("rollout", "attempt"))
    inside = (rollout >= 0) & (rollout < rollouts) & (attempt >= 1) & (attempt <= k)
    places = (task * rollouts + rollout) * k + attempt - 1
    taken = np.bincount(places[inside], minlength=len(tasks) * rollouts * k).reshape(len(tasks), rollouts * k)
    bad = (taken != 1).any(axis=1)
    bad[task[~inside]] = True
    if bad.any():
        first = tasks[int(bad.argmax())]
        raise RecordError(
            f"{path}: task {first} should have {rollouts} rollouts of {k} attempts once each, "
            f"found {(episodes['task'] == first).sum()} rows."
        )
    return np.asarray(places, dtype=np.int64)


def _check_numbers(
    path: Path, episodes: pd.DataFrame, task: npt.NDArray[np.int64], declared: Sequence[Task], suite: Suite
) -> None:
    """Check returns and lengths against what each task allows; `task` has each row's index in `declared`."""
    bounds = np.array([suite.return_bounds(each) for each in declared], dtype=np.float64)
    most_steps = np.array([each.max_steps for each in declared])
    low, high = bounds[task].T
    slack = 1e-6 * np.maximum(1.0, np.abs(bounds).max(axis=1))[task]  # of sums of many rewards
    returns, lengths = episodes["return"].to_numpy(), episodes["length"].to_numpy()
    possible = (returns >= low - slack) & (returns <= high + slack)  # False for NaN
    possible &= (lengths >= 0) & (lengths <= most_steps[task])
    if not possible.all():
        first = int((~possible).argmax())
        raise RecordError(
            f"{path}: {_where(episodes, first)} has return {returns[first]} and length {lengths[first]}; this task "
            f"allows returns from {low[first]:g} to {high[first]:g} and at most {most_steps[task[first]]} steps."
        )


def _check_successes(path: Path, episodes: pd.DataFrame, suite: Suite) -> None:
    empty = episodes["success"].isna().to_numpy()
    wrong = np.flatnonzero(empty == suite.has_success)
    if len(wrong):
        held = "has no success" if suite.has_success else "has a success"
        defined = "every attempt succeeds or fails" if suite.has_success else "defines no success"
        raise RecordError(f"{path}: {_where(episodes, wrong[0])} {held}; on suite {suite.name!r} {defined}.")


def _check_limit(path: Path, episodes: pd.DataFrame, manifest: Mapping[str, Any]) -> None:
    """Check that only a time limit on the rollout leaves attempts unplayed, and that rollouts keep to it."""
    limit = {**registration.find(manifest["env_id"]).kwargs, **manifest["env_kwargs"]}.get("max_steps")
    unplayed = episodes["length"].to_numpy() == 0
    wrong = unplayed & ((episodes["attempt"].to_numpy() == 1) | (limit is None) | (episodes["return"].to_numpy() != 0))
    if wrong.any():
        raise RecordError(f"{path}: {_where(episodes, int(wrong.argmax()))} has length 0: it should have been played.")
    if limit is None:
        return
    played = episodes.groupby(["task", "rollout"], sort=False)["length"].sum()
    if (played > limit).any():
        task, rollout = played.idxmax()
        raise RecordError(
            f"{path}: task {task}, rollout {rollout} has {played.max()} steps, but rollouts end after {limit}."
        )


def _where(episodes: pd.DataFrame, index: int) -> str:
    row = episodes.iloc[index]
    return f"task {row['task']}, rollout {row['rollout']}, attempt {row['attempt']}"


def _variants(suite: Suite, manifest: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """The fixed variants of the run's cases, ``(tasks, rollouts, k)``."""
    split, tasks, use = manifest["split"], manifest["tasks"], manifest.get("cases", "evaluation")
    sizes = manifest["rollouts_per_task"], manifest["k"]
    condition = condition_of(manifest)
    return np.stack([case_variants(suite, split, task, *sizes, use, condition) for task in tasks])
