"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EnvId = Annotated[str, typer.Argument(metavar="ID", help="A Gymnasium ID from `mtbench list`.")]
PolicyName = Annotated[
    str, typer.Option("--policy", help="random, oracle, a training run, module:attribute or file.py:attribute.")
]
EnvOptions = Annotated[
    list[str],
    typer.Option(
        "--env",
        metavar="KEY=VALUE",
        help="An argument of the environment, its value as JSON: --env k=1 --env 'tasks=[\"RepeatFirstEasy\"]'.",
    ),
]
SplitName = Annotated[str, typer.Option("--split", help="train or test.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seeds every draw.")]
Interval = Annotated[str, typer.Option("--interval", help="jackknife (whole runs) or stratified-bootstrap.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SkipUnfinished = Annotated[
    bool, typer.Option("--skip-unfinished", help="Leave out unfinished and damaged evaluations, and name them.")
]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes that play. Default: one for each core.")]
BackendName = Annotated[
    str, typer.Option("--backend", help="local: processes of this machine. ray: a Ray cluster (extra ray).")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="HOST:PORT", help="Of the Ray cluster's head, or auto. Default: Ray on this machine."
    ),
]
SuiteModules = Annotated[
    list[str],
    typer.Option(
        "--suite",
        metavar="MODULE",
        help="Import a suite of another package, such as my_package.my_suite, which registers its IDs.",
    ),
]
RunFolders = Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run folders, or folders of them.")]
