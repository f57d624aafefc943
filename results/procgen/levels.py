"""How many test levels of Procgen look like a level of training, and a list of those that do not.

    python results/procgen/levels.py

A level's look is its first frame with the whole level in view (``center_agent`` off), as openai/procgen issue 100 has
it. It writes overlap.csv here, and ``distinct-levels.json`` into the package. Four minutes on one core.
"""

import json
from pathlib import Path

import pandas as pd
from rich.progress import track

import mtbench.suites.procgen as procgen
from mtbench.records import write_atomically
from mtbench.suites.procgen import GAMES, MEMORY_GAMES, TRAIN_LEVELS, core

HERE = Path(__file__).parent
TESTED = 3000
LISTED = 1000


def looks(game: str, mode: str) -> list[int]:
    """Of the levels of training and of as many test levels as are tested."""
    buffers = core.Buffers.new()
    seen = []
    for level in range(TRAIN_LEVELS + TESTED):
        core.Core(game, mode, level, buffers, centered=False).close()
        seen.append(hash(buffers.frame.tobytes()))
    return seen


def main() -> None:
    """Measure, then list."""
    played = [(game, mode) for mode in core.MODES for game in (MEMORY_GAMES if mode == "memory" else GAMES)]
    found = {each: looks(*each) for each in track(played, description="games")}
    rows = []
    for (game, mode), seen in found.items():
        train, test = set(seen[:TRAIN_LEVELS]), seen[TRAIN_LEVELS:]
        rows.append(
            {
                **{"game": game, "mode": mode, "train_levels": TRAIN_LEVELS, "test_levels": TESTED},
                "test_levels_seen_in_training_percent": round(100 * sum(look in train for look in test) / TESTED, 2),
                "distinct_train_levels": len(train),
                "distinct_test_levels": len(set(test)),
            }
        )
    write_atomically(HERE / "overlap.csv", lambda path: pd.DataFrame(rows).to_csv(path, index=False))
    seen = {
        mode: dict(zip(part["game"], (part["test_levels_seen_in_training_percent"] / 100).round(4), strict=True))
        for mode, part in pd.DataFrame(rows).groupby("mode", sort=False)
    }
    levels = {suite: distinct([found[each] for each in modes]) for suite, modes in modes_of_suites().items()}
    lines = ",\n".join(f"{json.dumps(suite)}: {json.dumps(listed)}" for suite, listed in levels.items())
    content = f'{{"made by": "results/procgen/levels.py", "seen": {json.dumps(seen)}, "levels": {{\n{lines}\n}}}}\n'
    data = Path(procgen.__file__).parent / "distinct-levels.json"
    write_atomically(data, lambda path: path.write_text(content))


def modes_of_suites() -> dict[str, list[tuple[str, str]]]:
    """Games and modes of each suite."""
    return {name: list(suite.modes.items()) for name, suite in procgen.SUITES.items()}


def distinct(looks_of_games: list[list[int]]) -> list[int]:
    """The first test levels that in no game look like a level of training or like an earlier one of the list."""
    seen = [set(looks[:TRAIN_LEVELS]) for looks in looks_of_games]
    listed: list[int] = []
    for level in range(TRAIN_LEVELS, TRAIN_LEVELS + TESTED):
        look = [looks[level] for looks in looks_of_games]
        if not any(one in known for one, known in zip(look, seen, strict=True)):
            listed.append(level)
            for one, known in zip(look, seen, strict=True):
                known.add(one)
        if len(listed) == LISTED:
            return listed
    raise RuntimeError(f"only {len(listed)} of {TESTED} levels are distinct in all games")


if __name__ == "__main__":
    main()
