"""``mtbench leaderboard``: new, check, replay, rerun, build."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from mtbench.cli_options import Address, BackendName, Jobs
from mtbench.errors import UsageError
from mtbench.printing import counted, counting, progress_bar, say, shown_path, tell

leaderboard: typer.Typer = typer.Typer(help="Make, check, replay and render submissions.", no_args_is_help=True)

Submissions = Annotated[list[Path], typer.Argument(metavar="SUBMISSION...", help="Folders of submissions.")]
Board = Annotated[
    Path | None, typer.Option("--board", metavar="DIR", help="The leaderboard's folder: write badges, for maintainers.")
]
_MOST_SHOWN = 20


@leaderboard.command()
def new(
    out: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="A new folder, named as the submission.")],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, one for each training seed.")],
) -> None:
    """Make a submission of finished runs. On a terminal it asks for the card; else there is one to fill in."""
    from mtbench.api import run_folders
    from mtbench.audit import MEASURES
    from mtbench.leaderboard.card import CARD, asked_for, template
    from mtbench.leaderboard.submission import RUNS
    from mtbench.records import EPISODES, MANIFEST, read_run
    from mtbench.traces import ACTIONS

    if out.exists():
        raise UsageError(f"{out} exists: give a new folder.")
    found = [read_run(path) for folder in runs for path in run_folders(folder)]
    for number, run in enumerate(found):
        seed = run.manifest["train_seed"]
        into = out / RUNS / f"{run.manifest['env_id']}-{run.manifest['split']}-{number if seed is None else seed}"
        assert run.path is not None
        for part in ("", *MEASURES):
            for name in (EPISODES, ACTIONS, MANIFEST):
                if (run.path / part / name).is_file():
                    (into / part).mkdir(parents=True, exist_ok=True)
                    shutil.copy(run.path / part / name, into / part / name)
    agent = found[0].manifest["agent"]
    answered = _somebody_is_there()
    card = asked_for(agent, _ask) if answered else template(agent)
    (out / CARD).write_text(card, encoding="utf-8")
    then = "" if answered else f"fill in {CARD}, then "
    say(f"wrote {shown_path(out)}: {then}run mtbench leaderboard check {shown_path(out)}")


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _ask(question: str, default: str) -> str:
    return str(typer.prompt(question, default=default, show_default=False, err=True))


@leaderboard.command()
def check(submissions: Submissions) -> None:
    """Say why submissions are refused, or that they are not. Exits with 1 where one is."""
    from mtbench.leaderboard.card import SubmissionError
    from mtbench.leaderboard.submission import read_submission

    refused = False
    for path in submissions:
        try:
            found = read_submission(path)
        except SubmissionError as error:
            refused = True
            for reason in str(error).splitlines():
                tell(f"refused: {reason}")
            continue
        for (env_id, split), runs in found.groups.items():
            say(f"{shown_path(path)}: {env_id}, {split} split, {counted(len(runs), 'run')}: accepted")
    if refused:
        raise typer.Exit(1)


@leaderboard.command()
def replay(
    submissions: Submissions,
    board: Board = None,
    jobs: Jobs = None,
    backend: BackendName = "local",
    address: Address = None,
) -> None:
    """Check submissions and play their actions again. Exits with 1 where something differs."""
    from mtbench.leaderboard.badges import replay as play_again
    from mtbench.leaderboard.badges import write_badge
    from mtbench.leaderboard.submission import read_submission

    wrong = False
    for path in submissions:
        submission = read_submission(path)
        with progress_bar("rollouts") as progress:
            count = counting(progress, shown_path(path))
            found = play_again(submission, jobs=jobs, backend=backend, address=address, on_rollout=count)
        for sentence in found[:_MOST_SHOWN]:
            tell(sentence)
        wrong |= bool(found)
        if found:
            tell(f"{shown_path(path)}: {len(found):,} differences")
            continue
        say(f"{shown_path(path)}: as recorded, to the last bit")
        if board is not None:
            write_badge(board, submission, "replayed")
    if wrong:
        raise typer.Exit(1)


@leaderboard.command()
def rerun(
    path: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="The folder of a submission.")],
    policies: Annotated[
        list[str],
        typer.Option(
            "--policy",
            metavar="[RUN=]NAME",
            help="The policy of a run of the submission, or of all runs: as for mtbench evaluate.",
        ),
    ],
    board: Annotated[
        Path, typer.Option("--board", metavar="DIR", help="The leaderboard's folder, where records and badge go.")
    ] = Path("leaderboards"),
    secret: Annotated[
        str | None, typer.Option("--secret", help="Go on with an interrupted rerun; else a new one is drawn.")
    ] = None,
    jobs: Jobs = None,
    backend: BackendName = "local",
    address: Address = None,
) -> None:
    """Run a submission's policies, locked in, on cases that nobody knew. Exits with 1 where scores are too high."""
    from mtbench.cases import is_use, new_secret
    from mtbench.leaderboard.badges import rerun_folder, write_badge
    from mtbench.leaderboard.rerun import differences
    from mtbench.leaderboard.rerun import rerun as run_again
    from mtbench.leaderboard.submission import read_submission
    from mtbench.signals import sigterm_interrupts

    submission = read_submission(path)
    given = dict(text.split("=", 1) if "=" in text else ["", text] for text in policies)
    cases = new_secret() if secret is None else f"secret:{secret}"
    if not is_use(cases):
        raise UsageError("--secret should be 32 hexadecimal digits, as an interrupted rerun has printed them.")
    folder = rerun_folder(board, submission)
    if secret is None and folder.exists():
        raise UsageError(f"{folder} holds a rerun: give its --secret to go on with it, or delete it for another one.")
    tell(f"If this is interrupted, it goes on with --secret {cases.partition(':')[2]}")
    with sigterm_interrupts(), progress_bar("rollouts") as progress:
        again = run_again(
            submission,
            given,
            cases,
            folder,
            jobs=jobs,
            backend=backend,
            address=address,
            on_rollout=counting(progress, shown_path(path)),
        )
    write_badge(board, submission, "rerun", again)
    found = differences(submission, again)
    for (env_id, split), difference in found.items():
        say(f"{shown_path(path)}: {env_id}, {split} split, rerun minus reported {difference}")
    if not all(difference.reproduced for difference in found.values()):
        raise typer.Exit(1)


@leaderboard.command()
def build(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The leaderboard's folder.")] = Path("leaderboards"),
    site: Annotated[
        Path | None, typer.Option("--site", metavar="DIR", help="Also write a static site, to sort and filter.")
    ] = None,
    jobs: Jobs = None,
) -> None:
    """Render the tables and a page for each submission."""
    from mtbench.leaderboard.board import build as render
    from mtbench.vector.engine import cpus

    with progress_bar("submissions") as progress:
        count = counting(progress, shown_path(folder))
        written = render(folder, site, jobs=jobs or cpus(), on_submission=count)
    say(f"wrote {shown_path(written[-1])} and {counted(len(written) - 1, 'page')}")
    if site is not None:
        say(f"wrote {shown_path(site / 'index.html')}")
