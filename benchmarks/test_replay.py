"""How fast slices of images come out of a replay on disk, beside what the disk and the page cache give.

``make bench`` prints the table. Slices are of 128 timesteps of 64 x 64 x 3 bytes, a batch has 24 (the paper's for
Procgen). ``MTBENCH_REPLAY`` names a folder on the disk to measure; else it is the temporary one.
"""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mtbench_agents.transformer.replay import Replay, Rollout

TIMESTEPS, LENGTH, CONTEXT, BATCH, ROUNDS = 60_000, 500, 128, 24, 5

ROWS = {}


@pytest.fixture(scope="module")
def replay():
    with tempfile.TemporaryDirectory(dir=os.environ.get("MTBENCH_REPLAY")) as folder:
        replay = Replay(TIMESTEPS, np.zeros((64, 64, 3), np.uint8), np.zeros((), np.int64), Path(folder))
        frames = np.random.default_rng(0).integers(256, size=(LENGTH + 1, 64, 64, 3), dtype=np.uint8)
        for _ in range(TIMESTEPS // (LENGTH + 1)):
            replay.add(Rollout(frames, np.zeros(LENGTH, np.int64), np.zeros(LENGTH, np.float32), True))
        replay.state()  # writes it to the disk
        yield replay, Path(folder) / "observations.bin"
        replay.close()


def forget(file, replay):
    """Drop the file from the page cache and from the process."""
    for mapping in replay._maps:
        mapping._mmap.madvise(4)  # MADV_DONTNEED
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def raw(file, rng, threads):
    """A batch of slices by plain reads into new memory."""
    batch = np.empty((BATCH, CONTEXT + 1, 64, 64, 3), np.uint8)
    begins = rng.integers(TIMESTEPS - 2 * CONTEXT, size=BATCH) * batch[0, 0].nbytes
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda i: os.preadv(file, [batch[i]], int(begins[i])), range(BATCH)))
    return batch.nbytes


@pytest.mark.parametrize("where", ["disk", "page cache"])
def test_slices_come_at_the_rate_of(where, replay):
    replay, path = replay
    rng = np.random.default_rng(1)
    ways = {
        "replay": lambda: replay.sample(BATCH, CONTEXT, rng).observations.nbytes,
        "plain reads, 1 at once": lambda: raw(file, rng, 1),
        "plain reads, 4 at once": lambda: raw(file, rng, 4),
    }
    with path.open("rb") as opened:
        file = opened.fileno()
        rates = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                if where == "disk":
                    forget(file, replay)
                way_bytes, began = 0, time.perf_counter()
                for _ in range(3):
                    way_bytes += way()
                rates[name].append(way_bytes / (time.perf_counter() - began) / 1e9)
    ROWS[where] = {name: float(np.median(values)) for name, values in rates.items()}


def test_print_the_table(capsys):
    if not ROWS:
        pytest.skip("nothing was timed")
    with capsys.disabled():
        for where, rates in ROWS.items():
            best = max(rates[name] for name in rates if name != "replay")
            print(f"\n{where}:", *(f"{name} {rate:.2f} GB/s;" for name, rate in rates.items()), end=" ")
            print(f"{rates['replay'] / best:.0%} of the fastest plain reads", end="")
