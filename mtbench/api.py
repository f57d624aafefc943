"""What ``import mtbench`` offers to Python: evaluate a policy, score runs.

Both load pandas and the simulators when they are called, so :mod:`mtbench` imports this module when one of its names is
first used.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtbench.cases import Use
from mtbench.errors import UsageError
from mtbench.evaluation import OnRollout, is_run
from mtbench.evaluation import evaluate as evaluate_into
from mtbench.policy import Policy
from mtbench.records import Run, read_run
from mtbench.scoring.scores import Scores
from mtbench.scoring.scores import score as score_runs


def evaluate(
    env_id: str,
    policy: Policy | Callable[[Any], Any] | str,
    out: Path | str | None = None,
    *,
    split: str = "test",
    cases: Use = "evaluation",
    rollouts_per_task: int = 20,
    agent: str | None = None,
    seed: int = 0,
    num_envs: int | None = None,
    jobs: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    train_seed: int | None = None,
    step: int | None = None,
    on_rollout: OnRollout | None = None,
) -> Run:
    """Evaluate a policy on the fixed cases that every agent plays.

    Args:
        env_id: A registered ID, such as ``"MTPOPGym-v0"``.
        policy: A policy (:class:`mtbench.Policy`), a function of one observation, or a name such as ``"random"``,
            ``"oracle"``, the folder of a training run or ``"my_policy.py:act"``.
        out: A folder for the records. Calling again with the same arguments resumes an interrupted evaluation and
            returns a finished one. None keeps nothing on disk: the run is in memory, and an interruption loses it.
        split: ``"train"`` or ``"test"``, or another that the suite offers.
        cases: ``"evaluation"``, or ``"validation"`` to choose between models.
        rollouts_per_task: Meta-rollouts for each task.
        agent: Name for tables; by default the policy's name.
        seed: Seeds the policy's own draws.
        num_envs: Environments played at once by each process. A policy that draws random numbers for the whole batch
            plays otherwise with another number. None chooses it (see :func:`mtbench.evaluation.evaluate`).
        jobs: Processes that play; it changes no record. None uses the cores where that is worth it. A policy that is
            defined in a script or a notebook, or cannot be pickled, plays in one process.
        env_kwargs: Further arguments of the environment, such as ``{"tasks": ["RepeatFirstEasy"]}``.
        train_seed: Seed of the agent's training run, if it has one.
        step: Environment steps the agent was trained for, if it was.
        on_rollout: Called with (rollouts done, rollouts in all) after each one.

    Raises:
        ValueError: An argument is wrong, or the folder holds an evaluation with other settings.
        RecordError: The folder holds a damaged run.
    """

    def into(folder: Path | str) -> Run:
        return evaluate_into(
            env_id,
            policy,
            folder,
            split=split,
            cases=cases,
            rollouts_per_task=rollouts_per_task,
            agent=agent,
            seed=seed,
            num_envs=num_envs,
            jobs=jobs,
            env_kwargs=env_kwargs,
            train_seed=train_seed,
            step=step,
            on_rollout=on_rollout,
        )

    if out is not None:
        return into(out)
    with tempfile.TemporaryDirectory(prefix="mtbench-") as folder:
        return dataclasses.replace(into(folder), path=None)


def score(
    runs: Run | Path | str | Iterable[Run | Path | str],
    *,
    seed: int = 0,
    replicates: int = 2000,
    interval: str = "jackknife",
) -> Scores:
    """Score runs of one environment; several runs of one agent are its training seeds.

    Args:
        runs: Runs, run folders or folders of run folders; one or several.
        seed: Seeds the bootstrap.
        replicates: Bootstrap replicates, where a bootstrap is used.
        interval: ``"jackknife"`` resamples whole runs, or the rollouts of an agent with one run;
            ``"stratified-bootstrap"`` draws runs anew for every task (see :mod:`mtbench.scoring.intervals`).

    Raises:
        RecordError: A run cannot be read, or runs cannot be compared; the message names what differs.
        ValueError: There is no run, or no such interval.
    """
    given = [runs] if isinstance(runs, (Run, Path, str)) else runs
    return score_runs(list(_read(given)), seed=seed, replicates=replicates, interval=interval)


def _read(runs: Iterable[Run | Path | str]) -> Iterator[Run]:
    for run in runs:
        if isinstance(run, Run):
            yield run
        elif isinstance(run, (Path, str)):
            yield from map(read_run, run_folders(Path(run)))
        else:
            raise UsageError(f"Give runs or run folders to score, not a {type(run).__name__}.")


def run_folders(folder: Path) -> list[Path]:
    """The runs directly inside a folder, in order of name; the folder itself if it is a run or has none inside."""
    if is_run(folder):
        return [folder]
    return [path for path in sorted(folder.glob("*")) if is_run(path)] or [folder]
