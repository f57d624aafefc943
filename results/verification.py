"""What recorded actions cost, and whether replaying them finds the same records.

``python results/verification.py`` evaluates the random policy on 20 rollouts of every test task, in one process, and
plays its actions again in one process. It writes verification.csv.
``python results/pages.py`` then writes the table of verification.md.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from mtbench import evaluate
from mtbench.records import write_atomically
from mtbench.traces import ACTIONS
from mtbench.verification import verify

HERE = Path(__file__).parent
IDS = ("MTPOPGym-v0", "MTBabyAI-v0", "ML45-v0", "MTProcgen-Easy-v0", "MTProcgen-MemoryHard-v0", "MTAtari-v0")


def measured(env_id: str, rollouts: int, folder: Path) -> dict[str, object]:
    """One row of the table; each part in a process of its own, so that none finds compiled code or levels ready."""
    run = evaluate(env_id, "random", folder, rollouts_per_task=rollouts, jobs=1, save_actions=True)
    found = verify(run, jobs=1)
    return {
        "env_id": env_id,
        "rollouts": found.rollouts,
        "steps": found.steps,
        "action_bytes": found.action_bytes,
        "evaluation_seconds": run.manifest["seconds"],
        "replay_seconds": round(found.seconds, 2),
        "differences": len(found.differences),
        "records_bytes": sum(path.stat().st_size for path in folder.iterdir() if path.name != ACTIONS),
    }


def table() -> str:
    """The committed measurements as Markdown."""
    frame = pd.read_csv(HERE / "verification.csv")
    columns = ("ID", "rollouts", "steps", "actions, kB", "bits a step", "evaluation, s", "replay, s", "differences")
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for row in frame.itertuples():
        bits = 8 * row.action_bytes / row.steps
        cells = (row.env_id, f"{row.rollouts:,}", f"{row.steps:,}", f"{row.action_bytes / 1e3:,.0f}", f"{bits:.1f}")
        times = (f"{row.evaluation_seconds:.1f}", f"{row.replay_seconds:.1f}", str(row.differences))
        lines.append(f"| {' | '.join((*cells, *times))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """All of it, or with --one, one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts-per-task", type=int, default=20)
    parser.add_argument("--one", metavar="ID")
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            row = measured(arguments.one, arguments.rollouts_per_task, Path(folder))
            pd.DataFrame([row]).to_csv(sys.stdout, index=False)
        return
    rows = []
    for env_id in IDS:
        again = [sys.executable, __file__, "--one", env_id, "--rollouts-per-task", str(arguments.rollouts_per_task)]
        with subprocess.Popen(again, stdout=subprocess.PIPE, text=True) as process:
            rows.append(pd.read_csv(process.stdout))
        assert process.returncode == 0, env_id
    frame = pd.concat(rows, ignore_index=True)
    write_atomically(HERE / "verification.csv", lambda path: frame.to_csv(path, index=False))


if __name__ == "__main__":
    main()
