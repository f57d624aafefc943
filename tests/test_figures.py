"""The figures of docs/figures.md: the commands on the page draw what is committed, and the page shows nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.paths import ROOT

TEXT = (ROOT / "docs" / "figures.md").read_text()
SHOWN = sorted({(ROOT / "docs" / path).resolve() for path in re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", TEXT)})
DRAWN_WITH = "3.11"  # Matplotlib's: others set text otherwise
COMMANDS = sorted(set(re.findall(r"^```text\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with all figures, drawn by the commands on the page from what is committed."""
    out = tmp_path_factory.mktemp("figures")
    for command in COMMANDS:
        elsewhere = re.sub(r"(?<= --out )\S*/", f"{out}/", command)
        elsewhere = re.sub(r"(?<=figures\.py)$", f" {out}", elsewhere, flags=re.MULTILINE)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-ec", elsewhere], cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return out


def test_the_page_shows_what_its_commands_draw(drawn):
    assert sorted(path.name for path in SHOWN) == sorted(path.name for path in drawn.iterdir())


@pytest.mark.skipif(not mpl.__version__.startswith(DRAWN_WITH), reason=f"figures are those of Matplotlib {DRAWN_WITH}")
@pytest.mark.parametrize("committed", SHOWN, ids=lambda path: path.stem)
def test_a_figure_shows_its_records(drawn, committed):
    """To renew it, run its command on the page."""
    ours, theirs = (plt.imread(path) for path in (drawn / committed.name, committed))
    assert ours.shape == theirs.shape
    unlike = (np.abs(ours - theirs) > 0.05).any(axis=-1).sum()
    assert unlike <= 20, f"{unlike} pixels: more than what other machines and versions of NumPy round otherwise"


def test_figures_are_small():
    assert all(path.stat().st_size < 200_000 for path in SHOWN)
