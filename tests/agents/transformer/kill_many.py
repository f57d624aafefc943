"""Twenty kills at random moments: ``python -m tests.agents.transformer.kill_many``."""

import tempfile
from pathlib import Path

from .test_train import kill_at_random

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        kill_at_random(Path(folder) / "run", kills=20, seed=1)
    print("20 kills, every run went on")
