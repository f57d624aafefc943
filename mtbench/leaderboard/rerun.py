"""Run the policies of a submission again, locked in, on cases that nobody could know, and compare.

Whoever hands in an agent has seen the fixed cases, and may have learnt them by heart, or have recorded the actions of
an oracle. The cases of a rerun come from a secret that is drawn after the agent was handed in. The secret stands in the
records of the rerun, so that everybody can check them; the next rerun draws another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtbench.cases import is_secret
from mtbench.errors import UsageError, unknown_name_error
from mtbench.evaluation import OnRollout, evaluate
from mtbench.leaderboard.submission import RUNS, Group, Submission
from mtbench.records import Run, read_run
from mtbench.scoring.comparison import on_other_cases
from mtbench.scoring.intervals import Estimate
from mtbench.scoring.tables import bracket
from mtbench.untrusted import shown

# What a run and its rerun have in common.
_SAME = ("env_id", "env_kwargs", "split", "tasks", "k", "objective", "agent", "train_seed", "evaluation_version")


@dataclass(frozen=True)
class Difference:
    """What a rerun of one environment and split showed, on the suite's first scale.

    Attributes:
        scale: Its name.
        estimate: The mean over tasks on the cases of the rerun minus that on the fixed ones.
    """

    scale: str
    estimate: Estimate

    @property
    def reproduced(self) -> bool:
        """Whether the reported score is borne out.

        It is not where it is too high by more than twice half the interval's width. Chance does that to one honest
        score in 20,000.
        """
        return self.estimate.value >= -2 * (self.estimate.high - self.estimate.value)

    def __str__(self) -> str:
        verdict = "reproduced" if self.reproduced else "not reproduced, the reported score is too high"
        return f"{bracket(self.estimate)} on the {self.scale} scale: {verdict}"


def rerun(
    submission: Submission,
    policies: Mapping[str, str],
    cases: str,
    out: Path,
    *,
    jobs: int | None = None,
    backend: str = "local",
    address: str | None = None,
    on_rollout: OnRollout | None = None,
) -> dict[str, Run]:
    """Evaluate a submission's policies in isolation on cases of a secret.

    Args:
        submission: Checked.
        policies: By the name of a run's folder, its policy; under ``""`` that of all runs that are not named.
        cases: Of a secret (:func:`mtbench.cases.new_secret`).
        out: The records of each run are written to a folder of its name in this one. The same call resumes.
        jobs: Processes that play.
        backend: Where they are, as for :func:`mtbench.evaluate`.
        address: Of a Ray cluster.
        on_rollout: Called with (rollouts done, rollouts in all) of each run.

    Returns:
        The runs, by the name of the folder.

    Raises:
        UsageError: A run has no policy, a policy is another one than that of the submission or reads hidden state, or
            this system cannot isolate it.
    """
    runs = {name_of(run): run for run in submission.runs}
    for name in policies:
        if name and name not in runs:
            raise unknown_name_error("run", name, list(runs), f"submission {submission.name!r}")
    for name, run in runs.items():
        if name not in policies and "" not in policies:
            raise UsageError(f"The run {name} has no policy: give --policy {name}=NAME, or one for all runs.")
        if run.manifest["privileged"]:
            raise UsageError(f"The run {name} is of a policy that reads hidden state: it cannot be isolated.")
    again = {}
    for name, run in runs.items():
        m = run.manifest
        again[name] = evaluate(
            m["env_id"],
            policies.get(name, policies.get("", "")),
            out / name,
            split=m["split"],
            cases=cases,
            rollouts_per_task=m["rollouts_per_task"],
            agent=m["agent"],
            jobs=jobs,
            backend=backend,
            address=address,
            env_kwargs={key: value for key, value in m["env_kwargs"].items() if key != "split"},
            train_seed=m["train_seed"],
            step=m["step"],
            isolated=True,
            on_rollout=on_rollout,
        )
        _check_same(run, again[name])
    return again


def read_rerun(submission: Submission, folder: Path) -> dict[str, Run]:
    """Read the records that :func:`rerun` wrote for a submission.

    Raises:
        RecordError: They are damaged.
        UsageError: They are not of this submission.
    """
    found = {}
    for run in submission.runs:
        name = name_of(run)
        found[name] = read_run(folder / name)
        _check_same(run, found[name])
    return found


def differences(submission: Submission, again: Mapping[str, Run]) -> dict[Group, Difference]:
    """By ID and split, how a submission's scores differ from those of its rerun."""
    return {
        group: Difference(*on_other_cases(runs, [again[name_of(run)] for run in runs]))
        for group, runs in submission.groups.items()
    }


def name_of(run: Run) -> str:
    """The name of a run's folder in its submission."""
    assert run.path is not None
    assert run.path.parent.name == RUNS
    return run.path.name


def _check_same(run: Run, again: Run) -> None:
    one, two = run.manifest, again.manifest
    for key in _SAME:
        if one[key] != two[key]:
            raise UsageError(f"{again.name} is no rerun of {run.name}: {key} is {shown(two[key])}, not {one[key]!r}.")
    if one.get("policy_sha256") not in (None, two.get("policy_sha256")):
        raise UsageError(f"{again.name} is of another policy than {run.name}: digests of code or weights differ.")
    if not is_secret(two.get("cases", "evaluation")) or two.get("isolated") is not True:
        raise UsageError(f"{again.name} is no rerun: it was not isolated, or not on cases of a secret.")
