"""What `import mtbench` offers to Python."""

import ast
import tempfile

import numpy as np
import pandas as pd
import pytest

import mtbench
from mtbench.api import run_folders
from mtbench.errors import RecordError, UsageError
from mtbench.records import COLUMNS, read_run
from mtbench.scoring.frames import Number
from tests.paths import ROOT
from tests.scoring.runs import made_up

TASKS = {"tasks": ["MineSweeperEasy", "RepeatFirstEasy"]}


def played(out=None, policy="random", **kwargs):
    return mtbench.evaluate("MTPOPGym-v0", policy, out, rollouts_per_task=2, env_kwargs=TASKS, **kwargs)


def test_type_checkers_and_users_find_the_same_names():
    tree = ast.parse((ROOT / "mtbench/__init__.py").read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING")
    for_checkers = {alias.asname: node.module for node in checked.body for alias in node.names}
    assert for_checkers == mtbench._PUBLIC
    assert mtbench.__all__ == sorted([*mtbench._PUBLIC, "Row", "__version__", "register"])
    for name in mtbench.__all__:
        assert getattr(mtbench, name) is not None
        assert name in dir(mtbench)
    with pytest.raises(AttributeError, match="no attribute 'scor'"):
        _ = mtbench.scor


def test_without_a_folder_a_run_is_in_memory_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = played()
    assert run.path is None
    assert list(tmp_path.iterdir()) == []
    assert repr(run) == (
        "<mtbench run in memory: random on MTPOPGym-v0, test split, 2 tasks x 2 rollouts x 2 attempts>"
    )
    kept = played(tmp_path / "kept")
    pd.testing.assert_frame_equal(run.episodes, kept.episodes)
    assert kept.path == tmp_path / "kept"

    saved = run.save(tmp_path / "saved")
    pd.testing.assert_frame_equal(read_run(saved.path).episodes, run.episodes)
    with pytest.raises(UsageError, match="not an empty folder"):
        run.save(tmp_path / "kept")


def test_a_run_is_a_data_frame_of_its_own():
    run = made_up(tasks=["a", "b"])
    frame = run.to_dataframe()
    assert list(frame.columns) == list(COLUMNS)
    frame["return"] = np.nan
    assert run.episodes["return"].notna().all()


def test_score_takes_runs_folders_and_folders_of_runs(tmp_path):
    ours = played(tmp_path / "runs/ours", policy=lambda obs: 0, agent="ours")
    theirs = played(tmp_path / "runs/theirs")
    expected = mtbench.score([ours, theirs]).table()
    assert expected == mtbench.score(tmp_path / "runs").table()
    assert expected == mtbench.score([tmp_path / "runs/ours", str(tmp_path / "runs/theirs")]).table()
    assert mtbench.score(ours).table() == ours.score().table()
    assert run_folders(tmp_path / "nowhere") == [tmp_path / "nowhere"]
    with pytest.raises(RecordError, match="not a folder"):
        mtbench.score(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="not a int"):
        mtbench.score([3])
    with pytest.raises(UsageError, match="no run"):
        mtbench.score([])


def test_runs_in_memory_are_named_where_they_do_not_fit():
    with pytest.raises(RecordError, match="of mine and the run of yours cannot be compared: k is 2 in one and 1"):
        mtbench.score([in_memory("mine", k=2), in_memory("yours", k=1)])


def in_memory(agent, **kwargs):
    made = made_up(agent, **kwargs)
    return mtbench.Run(None, made.episodes, made.manifest)


@pytest.fixture(scope="module")
def scores():
    runs = [made_up(name, tasks=["AutoencodeEasy", "MineSweeperEasy"], value=lambda t, a, r: r / 10) for name in "xy"]
    return mtbench.score(runs)


def test_data_frames_are_tidy(scores):
    tasks = scores.to_dataframe()
    assert list(tasks.columns) == list(Number._fields)
    key = ["agent", "scale", "task"]
    assert not tasks.duplicated(key).any()
    assert len(tasks) == 2 * 2 * 3
    assert set(tasks["scale"]) == {"return", "oracle", "published"}
    cell = tasks[(tasks.agent == "y") & (tasks.scale == "oracle") & (tasks.task == "MineSweeperEasy")].iloc[0]
    estimate = scores.agents[1].normalized["oracle"]["MineSweeperEasy"]
    assert (cell["value"], cell["low"], cell["high"]) == (estimate.value, estimate.low, estimate.high)

    aggregates = scores.to_dataframe("aggregates")
    assert not aggregates.duplicated(["agent", "scale", "statistic"]).any()
    assert set(aggregates["statistic"]) == {"IQM", "median", "mean", "optimality gap"}
    assert len(scores.to_dataframe("all")) == len(scores.table("csv").splitlines()) - 1
    with pytest.raises(UsageError, match="Did you mean 'tasks'"):
        scores.to_dataframe("task")


def test_scores_print_and_draw(scores, tmp_path):
    assert str(scores).startswith("| agent")
    assert repr(scores) == "<mtbench scores of x, y on MTPOPGym-v0, test split>"
    assert scores.table("html").startswith("<!doctype html>")
    with pytest.raises(UsageError, match="no format 'docx'"):
        scores.table("docx")
    assert scores.plot("published")._repr_png_().startswith(b"\x89PNG")
    scores.save_figure(str(tmp_path / "scores.svg"))
    assert (tmp_path / "scores.svg").stat().st_size > 5000
