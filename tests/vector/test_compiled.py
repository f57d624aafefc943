"""Machine code is cached between processes, and compiled again when a function that it calls changes."""

import subprocess
import sys

import numpy as np
import pytest

numba = pytest.importorskip("numba")

RULES = "from mtbench.vector.compiled import compiled\n@compiled\ndef rule(x):\n    return x + {}\n"
LOOP = """
from mtbench.vector.compiled import kernel
from rules import rule
@kernel
def loop(x):
    return rule(x)
print(loop(1), sum(loop.stats.cache_hits.values()))
"""


def test_a_changed_rule_is_compiled_again(tmp_path):
    def run():
        environment = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, str(tmp_path / "loop.py")]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()

    (tmp_path / "loop.py").write_text(LOOP)
    (tmp_path / "rules.py").write_text(RULES.format(1))
    assert run() == ["2", "0"]
    assert run() == ["2", "1"], "from the cache"
    (tmp_path / "rules.py").write_text(RULES.format(10))
    assert run() == ["11", "0"], "the rule has changed, and the loop's own file has not"
    assert run() == ["11", "1"]


def test_memory_is_asked_for_at_any_address():
    from mtbench.vector.compiled import prefetch

    @numba.njit
    def loop(addresses):
        for address in addresses:
            prefetch(address, 128)
        return len(addresses)

    own = np.arange(10)
    addresses = np.array([0, -64, 2**47, own.ctypes.data, own.ctypes.data + own.nbytes])
    assert loop(addresses) == 5
    (instructions,) = loop.inspect_llvm().values()
    assert "call void @llvm.prefetch" in instructions
