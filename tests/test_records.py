import json

import pandas as pd
import pytest

from mtbench.api import score
from mtbench.evaluation import evaluate
from mtbench.files import replace_folder
from mtbench.records import EPISODES, MANIFEST, RecordError, read_frame, read_run, write_atomically, write_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "run"
    evaluate("MTPOPGym-v0", "random", path, rollouts_per_task=2, env_kwargs={"tasks": ["MineSweeperEasy"]})
    return path


@pytest.fixture
def run(finished, tmp_path):
    for name in (EPISODES, MANIFEST):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    return tmp_path


def test_a_copy_reads_back(run):
    assert len(read_run(run).episodes) == 4


def test_runs_of_other_versions_are_scored_together(finished, tmp_path):
    """docs/stability.md: a manifest may get keys, and versions of packages are told but not compared."""
    task = {"tasks": ["MineSweeperEasy"]}
    evaluate("MTPOPGym-v0", "random", tmp_path, agent="other", rollouts_per_task=2, env_kwargs=task)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert {"python", "mtbench", "gymnasium", "numpy", "popgym"} == set(manifest["versions"])
    later = {**manifest, "new": 1, "versions": {**manifest["versions"], "mtbench": "9.0", "popgym": "9.0"}}
    (tmp_path / MANIFEST).write_text(json.dumps(later))
    assert [agent.agent for agent in score([finished, tmp_path]).agents] == ["random", "other"]


def test_truncated_episodes_are_refused(run):
    path = run / EPISODES
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RecordError, match="checksum differs"):
        read_run(run)
    with pytest.raises(RecordError, match="truncated or foreign"):
        read_frame(path)


def test_foreign_episodes_are_refused(run):
    pd.DataFrame({"x": [1]}).to_parquet(run / EPISODES)
    with pytest.raises(RecordError, match="checksum differs"):
        read_run(run)
    with pytest.raises(RecordError, match="has the columns"):
        read_frame(run / EPISODES)


def test_changed_episodes_are_refused(run):
    frame = pd.read_parquet(run / EPISODES)
    frame["return"] += 1.0
    frame.to_parquet(run / EPISODES)
    with pytest.raises(RecordError, match="checksum differs"):
        read_run(run)


def test_a_missing_file_is_named(run):
    (run / EPISODES).unlink()
    with pytest.raises(RecordError, match=r"episodes\.parquet does not exist"):
        read_run(run)
    (run / MANIFEST).unlink()
    with pytest.raises(RecordError, match=r"has no manifest\.json"):
        read_run(run)
    with pytest.raises(RecordError, match="is not a folder"):
        read_run(run / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[]", "schema version None"), ('{"schema_version": 99}', "schema version 99")],
)
def test_a_foreign_manifest_is_refused(run, text, message):
    (run / MANIFEST).write_text(text)
    with pytest.raises(RecordError, match=message):
        read_run(run)


def test_a_manifest_without_a_key_is_refused(run):
    manifest = json.loads((run / MANIFEST).read_text())
    del manifest["objective"]
    (run / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(RecordError, match="lacks objective"):
        read_run(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.iloc[:-1], "2 rollouts of 2 attempts"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "2 rollouts of 2 attempts"),
        (lambda f: f.assign(**{"return": float("nan")}), "MineSweeperEasy, rollout 0, attempt 1 has return nan"),
        (lambda f: f.assign(task="RepeatFirstEasy"), "no rows for MineSweeperEasy"),
        (lambda f: f.assign(agent="somebody"), "column 'agent'"),
    ],
)
def test_rows_that_do_not_match_are_not_written(run, tmp_path, change, message):
    original = read_run(run)
    target = tmp_path / "target"
    with pytest.raises(RecordError, match=message):
        write_run(target, change(original.episodes), original.manifest)
    assert not target.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("k", None),
        ("k", 0),
        ("rollouts_per_task", "abc"),
        ("rollouts_per_task", 5.9),
        ("tasks", 5),
        ("tasks", ["a", "a"]),
        ("agent", []),
        ("objective", "foo"),
        ("schema_version", True),
        ("train_seed", 7),
        ("env_kwargs", None),
    ],
)
def test_a_manifest_of_wrong_types_is_refused(run, key, value):
    manifest = json.loads((run / MANIFEST).read_text())
    (run / MANIFEST).write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(RecordError, match=key.replace("schema_version", "schema version")):
        read_run(run)


@pytest.mark.parametrize(
    "change",
    [{"variant": "x"}, {"return": "x"}, {"success": "x"}, {"length": float("nan")}, {"task": None}, {"attempt": 1.5}],
)
def test_columns_of_wrong_types_are_refused(run, change):
    pd.read_parquet(run / EPISODES).assign(**change).to_parquet(run / EPISODES)
    with pytest.raises(RecordError, match="column"):
        read_frame(run / EPISODES)


def test_a_folder_in_place_of_the_rows_is_refused(run):
    (run / EPISODES).unlink()
    (run / EPISODES).mkdir()
    with pytest.raises(RecordError):
        read_run(run)


def test_the_manifest_comes_last(run, tmp_path, monkeypatch):
    from mtbench import records

    def fail(*_):
        raise OSError("disk full")

    original = read_run(run)
    monkeypatch.setattr(records, "write_frame", fail)
    with pytest.raises(OSError, match="disk full"):
        write_run(tmp_path / "target", original.episodes, original.manifest)
    assert not (tmp_path / "target" / MANIFEST).exists()


def test_a_foreign_task_is_named(run, tmp_path):
    original = read_run(run)
    extra = original.episodes.assign(task="RepeatFirstEasy")
    with pytest.raises(RecordError, match="does not list: RepeatFirstEasy"):
        write_run(tmp_path / "target", pd.concat([original.episodes, extra]), original.manifest)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [write_atomically, replace_folder])
def test_an_error_names_the_path_that_was_asked_for(tmp_path, write):
    (tmp_path / "old").mkdir()

    def refused(temporary):
        raise PermissionError(13, "Permission denied", str(temporary))

    with pytest.raises(PermissionError) as caught:
        write(tmp_path / "old", refused)
    assert caught.value.filename == str(tmp_path / "old")
