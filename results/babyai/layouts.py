"""How many evaluation layouts of BabyAI repeat a layout of training, and a list of seeds that repeat none.

    python results/babyai/layouts.py FOLDER

Two layouts are the same when everything the rules know at the start is the same: the grid, all objects and their
states, the agent's place and direction, and the mission. FOLDER keeps the digests of the layouts of each task, so that
an interrupted run goes on. It writes repeats.csv here and ``repeats.json`` into the package. Ten minutes on one quiet
core, nearly all of it upstream's drawing of layouts.

Each task is measured in two steps. Where no two layouts are the same among the first 1,000 of training and 1,000 of
evaluation (2 million pairs), a pair is the same with a chance below 1.5e-6 (95 %), so below 0.75 % of evaluation
layouts repeat one of the 5,001 of training: the share is given as 0. All other tasks are measured against all 5,001.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

import mtbench.suites.babyai as babyai
from mtbench.records import write_atomically
from mtbench.suite import VariantRange
from mtbench.suites.babyai.layouts import Layouts, World

HERE = Path(__file__).parent
PLAYED = 5001  # seeds of training, and as many of the test split's
FIRST = 1000  # of these, for the first step
SAMPLED = 1000  # evaluation seeds for each task
LISTED = 500
MOST_REPEATED = 0.9  # a task whose layouts repeat more often than this has no part in the list


def digest(world: World, mission: str) -> bytes:
    """Of everything the rules know at the start."""
    return hashlib.blake2b(world.tobytes() + mission.encode(), digest_size=16).digest()


def digests(task: str, seeds: Iterable[int]) -> list[bytes]:
    """Of each seed's layout."""
    layouts = Layouts(task)
    return [digest(*layouts.draw(seed)) for seed in seeds]


def kept(folder: Path, task: str, name: str, seeds: Iterable[int]) -> list[bytes]:
    """Digests of the layouts of some seeds, from the folder if they are there."""
    path = folder / f"{task}.{name}.json"
    if not path.exists():
        found = [one.hex() for one in digests(task, seeds)]
        write_atomically(path, lambda to: to.write_text(json.dumps(found)))
    return [bytes.fromhex(one) for one in json.loads(path.read_text())]


def measure(folder: Path) -> pd.DataFrame:
    """One row for each task."""
    rows = {}
    small_first = sorted(babyai.TASKS.items(), key=lambda item: item[1].max_steps)
    for name, task in track(small_first, description="tasks"):
        split = babyai.SPLITS["test" if name in babyai.TEST_TASKS else "train"]
        assert isinstance(split.variants, VariantRange)
        assert isinstance(split.evaluation, VariantRange)
        first = split.variants.start
        sample = np.random.default_rng(0).choice(len(split.evaluation), SAMPLED, replace=False)
        evaluated = kept(folder, name, "evaluation", (split.evaluation.start + sample).tolist())
        played = kept(folder, name, "first", range(first, first + FIRST))
        if len(set(played + evaluated)) < FIRST + SAMPLED:
            played += kept(folder, name, "rest", range(first + FIRST, first + PLAYED))
        rows[name] = {
            **{"task": name, "split": split.name, "longest_attempt": task.max_steps, "played_seeds": len(played)},
            **{"distinct_played_layouts": len(set(played)), "evaluation_seeds": SAMPLED},
            "repeated_share": round(float(np.mean([one in set(played) for one in evaluated])), 4),
        }
        frame = pd.DataFrame([rows[task] for task in babyai.TASKS if task in rows])
        write_atomically(HERE / "repeats.csv", lambda path, frame=frame: frame.to_csv(path, index=False))
    return frame


def distinct(folder: Path, tasks: list[str]) -> list[int]:
    """The first evaluation seeds that in no task give a layout of training, or of an earlier one of the list.

    Args:
        folder: Has the digests of the layouts of training.
        tasks: Those that repeat, and those first that repeat most: they rule out most seeds.
    """
    layouts = {task: Layouts(task) for task in tasks}
    seen = {task: {*kept(folder, task, "first", ()), *kept(folder, task, "rest", ())} for task in tasks}
    evaluation = babyai.SPLITS["train"].evaluation
    assert isinstance(evaluation, VariantRange)
    listed: list[int] = []
    for seed in range(evaluation.start, evaluation.stop):
        found: dict[str, bytes] = {}
        for task in tasks:
            found[task] = digest(*layouts[task].draw(seed))
            if found[task] in seen[task]:
                break
        else:
            listed.append(seed)
            for task, one in found.items():
                seen[task].add(one)
        if len(listed) == LISTED:
            return listed
    raise RuntimeError(f"only {len(listed)} seeds are distinct in all tasks")


def write_data(folder: Path, frame: pd.DataFrame) -> None:
    """Shares and the list, for the package."""
    trained = frame[frame["task"].isin(babyai.TRAIN_TASKS) & (frame["played_seeds"] == PLAYED)]
    shares = trained.set_index("task")["repeated_share"].sort_values(ascending=False)
    content = {
        "made by": "results/babyai/layouts.py",
        "repeated": dict(frame[frame["split"] == "train"][["task", "repeated_share"]].itertuples(index=False)),
        "no_distinct_layouts": shares.index[shares > MOST_REPEATED].tolist(),
        "distinct_seeds": distinct(folder, shares.index[shares <= MOST_REPEATED].tolist()),
    }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items())
    data = Path(babyai.__file__).parent / "repeats.json"
    write_atomically(data, lambda path: path.write_text(f"{{{lines}}}\n"))


def main() -> None:
    """Measure, then list."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder, measure(folder))


if __name__ == "__main__":
    main()
