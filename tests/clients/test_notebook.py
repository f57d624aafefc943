"""The notebook runs from top to bottom, and shows tables and figures as notebooks do."""

import pytest

from tests.paths import ROOT

nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel: pip install 'mtbench-rl[dev]'")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("popgym")


def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(ROOT / "examples" / "scores.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "it is committed without its outputs"
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [set(cell.outputs[0].data) if cell.outputs else set() for cell in cells]
    assert {"text/html", "text/plain"} in shown
    assert {"image/png", "text/plain"} in shown
