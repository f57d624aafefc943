"""Play the recorded actions of a run again, and compare everything that the records say, to the last bit.

That shows that the returns are what these actions earn in these cases. It does not show that the policy saw no more
than it may: an oracle's actions pass, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pandas as pd

from mtbench.backends import Backend
from mtbench.cases import Case, manifest_cases
from mtbench.jobs import Setup
from mtbench.playing import PlayedShard, Shard
from mtbench.policy import load_policy
from mtbench.records import Run, episodes_frame
from mtbench.registration import find
from mtbench.traces import ACTIONS, read_actions

# Rollouts that a process plays at once, and in a shard: replaying takes no time but the engine's.
_NUM_ENVS, _SHARD = 64, 512

OnRollout = Callable[[int, int], None]


@dataclass(frozen=True)
class Verification:
    """What playing a run again showed.

    Attributes:
        run: Which.
        differences: What is not as the records say, a sentence each, in the order of the rows; empty where all is.
        rollouts: Played.
        steps: Of all rollouts.
        action_bytes: Of the file of actions.
        seconds: It took.
    """

    run: Run
    differences: list[str]
    rollouts: int
    steps: int
    action_bytes: int
    seconds: float


def verify(
    run: Run,
    *,
    jobs: int | None = None,
    backend: str = "local",
    address: str | None = None,
    on_rollout: OnRollout | None = None,
) -> Verification:
    """Play a run's recorded actions again.

    Args:
        run: Read from a folder, whose evaluation saved its actions.
        jobs: Processes that play; None means the cores that this process may use, or the cluster's.
        backend: ``"local"`` or ``"ray"``, as for :func:`mtbench.evaluation.evaluate`.
        address: Of the Ray cluster.
        on_rollout: Called with (rollouts done, rollouts in all).

    Raises:
        RecordError: The run has no recorded actions, or they are damaged.
    """
    began = time.monotonic()
    manifest = run.manifest
    arguments = dict(manifest["env_kwargs"])
    env_id = find(manifest["env_id"]).id
    one = gym.make(env_id, **arguments)
    one.close()
    recorded = read_actions(run, one.action_space)
    k = manifest["k"]
    played: dict[int, PlayedShard] = {}
    done = 0

    def on_rollouts(ended: int) -> None:
        nonlocal done
        done += ended
        if on_rollout is not None:
            on_rollout(done, len(recorded))

    def keep(shard: PlayedShard) -> None:
        played[shard.index] = shard

    shards = _shards(_cases_of(run), recorded)
    setup = Setup(gym.spec(env_id), arguments, min(_NUM_ENVS, len(recorded)), "random", None)
    Backend(backend, address, jobs).play(setup, load_policy("random"), shards, on_rollouts, keep)
    differences: list[tuple[int, str]] = []
    places = _by_rollout(run.episodes, k)
    for shard in shards:
        differences += _differences(run.episodes, places, shard, played[shard.index], k)
    assert run.path is not None
    return Verification(
        run,
        [sentence for _, sentence in sorted(differences)],
        len(recorded),
        sum(map(len, recorded)),
        (run.path / ACTIONS).stat().st_size,
        time.monotonic() - began,
    )


def _cases_of(run: Run) -> list[Case]:
    """The cases of a run, in the order of its rows."""
    cases = manifest_cases(find(run.manifest["env_id"]).suite, run.manifest)
    by_name = {(case.task, case.rollout): case for case in cases}
    first = run.episodes.iloc[:: run.manifest["k"]]
    return [by_name[name] for name in zip(first["task"], first["rollout"], strict=True)]


def _shards(cases: list[Case], actions: list[npt.NDArray[Any]]) -> list[Shard]:
    """The longest rollouts first: then few rows wait for the last ones."""
    order = sorted(range(len(cases)), key=lambda i: -len(actions[i]))
    shards = []
    for index, start in enumerate(range(0, len(order), _SHARD)):
        chosen = order[start : start + _SHARD]
        shards.append(Shard(index, [cases[i] for i in chosen], 0, actions=[actions[i] for i in chosen]))
    return shards


def _by_rollout(episodes: pd.DataFrame, k: int) -> dict[tuple[str, int], int]:
    """The place of the first attempt of each rollout."""
    first = episodes.iloc[::k]
    return {name: k * i for i, name in enumerate(zip(first["task"], first["rollout"], strict=True))}


def _differences(
    episodes: pd.DataFrame, places: dict[tuple[str, int], int], shard: Shard, played: PlayedShard, k: int
) -> list[tuple[int, str]]:
    """Sentences on a shard, each with the place of its row."""
    names = ("task", "variant", "rollout", "attempt", "return", "length", "success")
    rows = {name: played.columns[name] for name in names if name in played.columns}
    again = episodes_frame({**rows, "suite": "", "split": "", "agent": "", "train_seed": None, "step": None})
    keys = list(zip(again["task"].iloc[::k], again["rollout"].iloc[::k], strict=True))
    found: list[tuple[int, str]] = []
    at = np.concatenate([np.arange(places[key], places[key] + k) for key in keys])
    stated = episodes.iloc[at].reset_index(drop=True)
    for name in ("return", "length", "success"):
        one, two = (column.to_numpy(dtype=np.float64, na_value=np.nan) for column in (stated[name], again[name]))
        for i in np.flatnonzero((one != two) & ~(np.isnan(one) & np.isnan(two))).tolist():
            row = stated.iloc[i]
            where = f"task {row['task']}, rollout {row['rollout']}, attempt {row['attempt']}"
            found.append(
                (int(at[i]), f"{where}: recorded {name} {stated[name].iloc[i]}, replayed {again[name].iloc[i]}.")
            )
    given = {(case.task, case.rollout): actions for case, actions in zip(shard.cases, shard.actions or (), strict=True)}
    for key, actions in zip(keys, played.actions or (), strict=True):
        if len(actions) != len(given[key]):
            task, rollout = key
            found.append(
                (
                    places[key],
                    f"task {task}, rollout {rollout} has {len(given[key])} recorded actions, but "
                    + ("lasts longer." if len(actions) > len(given[key]) else f"is over after {len(actions)}."),
                )
            )
    return found
