"""What ``import mtbench`` offers for scores; :mod:`mtbench` imports this module, and pandas, when it is first used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mtbench.errors import UsageError
from mtbench.evaluation import is_run
from mtbench.records import Run, read_run
from mtbench.scoring.comparison import Comparison
from mtbench.scoring.comparison import compare as compare_runs
from mtbench.scoring.scores import Scores
from mtbench.scoring.scores import score as score_runs


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

    Example:
        >>> import mtbench
        >>> chosen = {"tasks": ["RepeatFirstEasy"]}
        >>> runs = [mtbench.evaluate("MTPOPGym-v0", name, env_kwargs=chosen) for name in ("random", "oracle")]
        >>> scores = mtbench.score(runs)
        >>> scores
        <mtbench scores of random, oracle on MTPOPGym-v0, test split>
        >>> round(scores.agents[1].aggregates["oracle"]["mean"].value, 3)
        1.0
    """
    given = [runs] if isinstance(runs, (Run, Path, str)) else runs
    return score_runs(list(_read(given)), seed=seed, replicates=replicates, interval=interval)


def compare(
    one: Run | Path | str | Iterable[Run | Path | str],
    two: Run | Path | str | Iterable[Run | Path | str],
    *,
    seed: int = 0,
    replicates: int = 2000,
) -> Comparison:
    """Compare two agents, paired by case; several runs of an agent are its training seeds.

    Args:
        one: Runs, run folders or folders of run folders, of one agent.
        two: Likewise, of another agent on the same environment.
        seed: Seeds the bootstrap.
        replicates: Bootstrap replicates, where a bootstrap is used.

    Raises:
        RecordError: A run cannot be read, or the runs cannot be compared; the message names what differs.

    Example:
        >>> import mtbench
        >>> chosen = {"tasks": ["RepeatFirstEasy"]}
        >>> random, oracle = (mtbench.evaluate("MTPOPGym-v0", name, env_kwargs=chosen) for name in ("random", "oracle"))
        >>> mtbench.compare(oracle, random).means["oracle"].low > 0
        True
    """
    runs = [list(_read([given] if isinstance(given, (Run, Path, str)) else given)) for given in (one, two)]
    return compare_runs(*runs, seed=seed, replicates=replicates)


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
