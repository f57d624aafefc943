"""How long a large leaderboard takes to build, and how much memory: ``make bench`` prints both.

Each submission has three training seeds on all 68 tasks of Multi-Task BabyAI (50 of the train split, 18 of the test
split), 20 rollouts each. ``MTBENCH_SUBMISSIONS`` says how many there are; a thousand take half a minute to make.
"""

import hashlib
import json
import os
import resource
from pathlib import Path

import pandas as pd
import pytest

import mtbench
from mtbench.leaderboard.board import SUBMISSIONS, build
from mtbench.leaderboard.card import CARD
from mtbench.leaderboard.submission import RUNS
from mtbench.records import EPISODES, MANIFEST

COUNT = int(os.environ.get("MTBENCH_SUBMISSIONS", "100"))

CARD_TEXT = """name = "random"
authors = ["nobody"]
description = "Made for the benchmark of the leaderboard."
trained_on = "nothing"
training_time = "none"
hardware = "none"
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("board")
    played = [
        mtbench.evaluate("MTBabyAI-v0", "random", split=split, train_seed=seed, seed=seed)
        for split in ("train", "test")
        for seed in range(3)
    ]
    for number in range(COUNT):
        for place, run in enumerate(played):
            into = folder / SUBMISSIONS / f"agent-{number}" / RUNS / f"run-{place}"
            into.mkdir(parents=True)
            # Returns a little lower each time: rollouts of two submissions must differ.
            episodes = run.episodes.assign(**{"return": run.episodes["return"] * (1 - 1e-5 * (number + 1))})
            episodes.to_parquet(into / EPISODES, index=False)
            digest = hashlib.sha256((into / EPISODES).read_bytes()).hexdigest()
            manifest = {**run.manifest, "seed": 0, "episodes_sha256": digest}
            (into / MANIFEST).write_text(json.dumps(manifest))
        (folder / SUBMISSIONS / f"agent-{number}" / CARD).write_text(CARD_TEXT)
    return folder


def test_build(board, benchmark):
    assert len(pd.unique(pd.Series([path.name for path in (board / SUBMISSIONS).iterdir()]))) == COUNT
    benchmark.pedantic(build, args=(board,), rounds=1)
    used = [resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"\n{COUNT} submissions: {used[0]:.2f} GiB in this process, {used[1]:.2f} in the largest other one")
