from pathlib import Path

import pytest

from mtbench.records import MANIFEST, Run, read_run

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
DOCS = ROOT / "docs"
# Without those that `make docs` copies.
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.relative_to(DOCS).parts)


def committed(folder: str) -> Run:
    """A run in results/; a test that needs one which has not been played under this evaluation version is skipped."""
    if not (RESULTS / folder / MANIFEST).exists():
        pytest.skip(f"results/{folder} is not there yet: python results/evaluate.py makes it")
    return read_run(RESULTS / folder)
