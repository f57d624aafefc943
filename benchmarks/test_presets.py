"""What each preset of each suite costs: timesteps an update learns from and environment steps acted in, a second.

``make bench`` prints the table, as CSV: results/speed has it. The paper's batches fill a GPU, so they are cut to 1,024
timesteps, or to one slice. Every row is a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mtbench_agents.transformer.config import preset

IDS = ("MTPOPGym-v0", "MTBabyAI-v0", "ML45-v0", "MTProcgen-Easy-v0", "MTProcgen-MemoryHard-v0", "MTAtari-v0")
MOST = 1024

ROWS = []


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("name", ["paper", "small"])
def test_preset(benchmark, name, env_id):
    config = preset(name, env_id)
    context = config.model.context
    command = [Path(sys.executable).parent / "mtbench", "bench", "agent", env_id, "--preset", name, "--json"]
    command += ["--updates", "3" if name == "paper" else "20"]
    if name == "paper":
        command += ["--batch-size", str(max(1, min(config.learning.batch_size, MOST // context)))]

    def measured():
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    numbers = benchmark.pedantic(measured, rounds=1)
    benchmark.extra_info.update(numbers)
    batch_size = numbers["batch_size"]
    whole = batch_size if name == "small" else config.learning.batch_size
    learnt, acted = numbers["tokens_per_s"], 1000 * numbers["envs"] / numbers["ms_per_batched_action"]
    row = (env_id, name, f"{numbers['parameters'] / 1e6:.2f}", f"{whole} x {context}", f"{batch_size} x {context}")
    times = (f"{learnt:.0f}", f"{learnt / (whole * context):.3g}", f"{acted:.0f}", str(numbers["envs"]))
    ROWS.append((*row, *times, f"{numbers['peak_memory_gib']:.1f}"))


def test_print_the_table(capsys):
    if not ROWS:
        pytest.skip("nothing was timed")
    header = ["ID", "preset", "million parameters", "batch", "timed batch", "timesteps learnt from a second"]
    header += ["updates a second", "steps acted a second", "environments", "peak GiB"]
    with capsys.disabled():
        print()
        for row in (header, *ROWS):
            print(",".join(row))
