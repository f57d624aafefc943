"""What the reference agent costs at the published agent's sizes: an update, a batched action, memory.

``make bench`` prints the table. Every row is a process of its own, so that peak memory is its own too. The published
agent's numbers are for a quiet two-core machine with PyTorch 2.13, eager; the ratio means something on such a machine.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Batch size, context, environments: seconds per update, GiB, milliseconds per batched action of the published agent
# (3.6 M optimized parameters); None where nobody measured.
PUBLISHED = {
    (8, 128, 24): (0.87, None, None),
    (24, 600, 24): (27.8, 9.1, 17.0),
    (1, 600, 256): (None, None, None),
}

ROWS = {}


@pytest.mark.parametrize("sizes", PUBLISHED, ids=lambda sizes: "x".join(map(str, sizes)))
def test_paper_preset(benchmark, sizes):
    batch_size, context, envs = sizes
    command = [Path(sys.executable).parent / "mtbench", "bench", "agent", "MTPOPGym-v0", "--json"]
    command += ["--preset", "paper", "--batch-size", str(batch_size), "--context", str(context), "--envs", str(envs)]

    def measured():
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return json.loads(output.splitlines()[-1])

    numbers = benchmark.pedantic(measured, rounds=1)
    benchmark.extra_info.update(numbers)
    assert numbers["parameters"] > 1_000_000
    ROWS[sizes] = numbers


def test_print_the_table(capsys):
    if not ROWS:
        pytest.skip("nothing was timed")
    names = ("s / update", "GiB", "ms / action")
    with capsys.disabled():
        print(
            f"\n{'batch x context x envs':24}" + "".join(f"{name:>12}{'published':>11}{'ratio':>7}" for name in names)
        )
        for sizes, n in ROWS.items():
            ours = n["seconds_per_update"], n["peak_memory_gib"], n["ms_per_batched_action"]
            cells = [
                f"{mine:12.3g}" + (f"{theirs:11.3g}{theirs / mine:7.2f}" if theirs else f"{'':18}")
                for mine, theirs in zip(ours, PUBLISHED[sizes], strict=True)
            ]
            steps = 1000 * sizes[2] / n["ms_per_batched_action"]
            print(f"{'x'.join(map(str, sizes)):24}{''.join(cells)}   {steps:,.0f} steps/s, {n['device']}")
