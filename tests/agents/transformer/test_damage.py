"""Training runs survive damaged files, interrupted checkpoints and full disks."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mtbench_agents.training import checkpoint
from mtbench_agents.training.run_log import RunLog
from mtbench_agents.training.settings import to_dict
from mtbench_agents.transformer.policy import load_run
from mtbench_agents.transformer.train import Trainer

from mtbench.errors import UsageError
from mtbench.evaluation import evaluate
from mtbench.files import DiskFullError
from mtbench.policy import fingerprint

from .test_durability import going_on, posix, saved
from .test_train import TINY, trained

# ---- damage ----


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    trained(folder, evaluate_rounds=2, evaluate_rollouts=1)
    return folder


@pytest.fixture
def run(whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / "run")
    return tmp_path / "run"


SETTINGS = dataclasses.replace(TINY, evaluate_rounds=2, evaluate_rollouts=1)


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "empty":
        content = bytearray()
    elif how == "truncated":
        content = content[: len(content) // 2]
    elif how == "garbage":
        content = bytearray(np.random.default_rng(0).bytes(len(content)))
    else:
        place = {"first": 0, "middle": len(content) // 2, "last": len(content) - 1}[how]
        content[place] ^= 0x80  # no longer ASCII: the worst for text
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage", "first", "middle", "last"])
@pytest.mark.parametrize("name", ["state.pt", "replay.npz", "digest"])
def test_a_damaged_part_of_a_checkpoint_falls_back(run, name, how):
    damaged(run / "checkpoints" / "update-000000012" / name, how)
    with pytest.warns(UserWarning, match="Falling back to the checkpoint before it"):
        trainer = going_on(SETTINGS, run)
    assert trainer.learner.updates == 12
    assert [line["updates"] for line in trainer.log.read()] == [3, 6, 9, 12]
    assert checkpoint.newest(run / "checkpoints")[1]["updates"] == 12


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage", "first", "middle", "last"])
def test_a_damaged_config_is_explained(run, how):
    damaged(run / "config.json", how)
    for attempt in (lambda: Trainer(SETTINGS, run), lambda: load_run(run)):
        with pytest.raises(UsageError, match=r"config\.json"):
            attempt()
    (run / "config.json").unlink()  # as the message says
    assert going_on(SETTINGS, run).learner.updates == 12


@pytest.mark.parametrize(
    "content",
    ["[]", "3", '{"model": 5}', '{"model": {"width": "x"}}', '{"learning": {"discounts": ["x"]}}', '{"a": 1}'],
)
def test_a_config_of_something_else_is_explained(run, content):
    (run / "config.json").write_text(content)
    with pytest.raises(UsageError, match=r"config\.json.*delete that file"):
        Trainer(SETTINGS, run)


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage", "first", "middle", "last"])
def test_a_damaged_log_costs_its_damaged_lines_alone(run, how):
    before, text = RunLog(run / "log.jsonl").read(), (run / "log.jsonl").read_bytes()
    damaged(run / "log.jsonl", how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(dataclasses.replace(SETTINGS, updates=15), run)
        trainer.run()
    *kept, last = trainer.log.read()
    assert all(line in before for line in kept)
    assert last["updates"] == 15
    assert all(json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    if how in ("first", "middle", "last"):
        between = how == "middle" and text[len(text) // 2] == ord("\n")  # two lines are one without what parts them
        assert len(kept) >= len(before) - 1 - between


def test_foreign_lines_of_a_log_are_left_out_with_a_warning(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    log.write({"updates": 3, "critic": 0.5})
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'[]\n7\n{"critic": 1}\n{"updates": true}\n{"updates": "6"}\n\xff\xfe\n')
    log.write({"updates": 6})
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"updates": 9, "cri')  # what a kill leaves is no damage
    with pytest.warns(UserWarning, match="damaged lines, which are left out: 6"):
        assert log.read() == [{"updates": 3, "critic": 0.5}, {"updates": 6}]
    with pytest.warns(UserWarning, match="damaged lines"):
        log.cut(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(log.read()) == 2


@pytest.mark.parametrize("name", ["config.json", "state.pt", "digest"])
def test_a_damaged_best_agent_is_refused_and_does_not_end_training(run, name):
    path = next((run / "best").rglob(name))
    damaged(path, "middle")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UsageError, match="damaged" if name != "config.json" else "config"):
            load_run(run / "best")
        trainer = Trainer(dataclasses.replace(SETTINGS, updates=18), run)
        trainer.run()
    assert trainer.learner.updates == 18
    load_run(run / "best")


def test_the_digest_names_the_checkpoint_that_played(run, tmp_path):
    older, newest = (run / "checkpoints" / f"update-{n:09d}" for n in (9, 12))
    assert fingerprint(str(run)) == load_run(run).digest == (newest / "digest").read_text()
    damaged(newest / "state.pt", "middle")
    with pytest.warns(UserWarning, match="Falling back"):
        assert fingerprint(str(run)) == (older / "digest").read_text()
    with pytest.warns(UserWarning, match="Falling back"):
        played = evaluate("MTPOPGym-v0", str(run), tmp_path / "played", rollouts_per_task=1, env_kwargs=TINY.env)
    assert played.manifest["policy_sha256"] == (older / "digest").read_text()
    assert played.manifest["step"] == checkpoint.load_state(older)["steps"]


# ---- the replay's files ----


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage", "deleted"])
@pytest.mark.parametrize("name", ["observations.bin", "rewards.bin"])
def test_a_damaged_replay_costs_its_damaged_rollouts_alone(run, name, how):
    before = Trainer(SETTINGS, run)
    held = len(before.replay)
    before.close()
    if how == "deleted":
        (run / "replay" / name).unlink()
    elif how == "truncated":  # within the part that is used
        content = (run / "replay" / name).read_bytes()
        (run / "replay" / name).write_bytes(content[: len(content) // 20])
    else:
        damaged(run / "replay" / name, how)
    with pytest.warns(UserWarning, match=rf"\d+ of {held} rollouts are left out"):
        trainer = Trainer(dataclasses.replace(SETTINGS, updates=15), run)
    assert trainer.learner.updates == 12, "no update is lost"
    assert len(trainer.replay) < held
    assert trainer.run()
    assert trainer.learner.updates == 15


def test_one_flipped_bit_of_the_replay_costs_one_rollout(run):
    trainer = Trainer(SETTINGS, run)
    held = len(trainer.replay)
    trainer.close()
    damaged(run / "replay" / "observations.bin", "first")
    with pytest.warns(UserWarning, match=f"1 of {held} rollouts"):
        assert len(Trainer(SETTINGS, run).replay) == held - 1


@pytest.mark.parametrize("linked", ["observations.bin", "actions.bin"])
def test_a_link_in_the_replay_is_not_written_through(run, tmp_path, linked):
    (tmp_path / "precious").write_text("mine")
    (run / "replay" / linked).unlink()
    (run / "replay" / linked).symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match=f"{linked} is a symbolic link"):
        Trainer(SETTINGS, run)
    assert (tmp_path / "precious").read_text() == "mine"


# ---- checkpoints ----


def simple(number):
    return {"model": {"w": torch.full((3,), float(number))}}


def test_a_kill_while_a_checkpoint_is_replaced_leaves_the_old_or_the_new_one(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 5, simple(1), {}, keep=1)
    replace = os.replace

    class Killed(BaseException):
        pass

    def killed_after(count):
        calls = []

        def counted(*paths):
            if len(calls) == count:
                raise Killed
            calls.append(paths)
            replace(*paths)

        return counted

    for count, expected in ((0, 1.0), (1, 1.0)):
        monkeypatch.setattr(os, "replace", killed_after(count))
        with pytest.raises(Killed):
            checkpoint.save(tmp_path, 5, simple(2), {}, keep=1)
        monkeypatch.undo()
        assert checkpoint.newest(tmp_path)[1]["model"]["w"][0] == expected
    checkpoint.save(tmp_path, 5, simple(3), {}, keep=1)
    assert checkpoint.newest(tmp_path)[1]["model"]["w"][0] == 3.0
    assert [path.name for path in tmp_path.iterdir()] == ["update-000000005"]


def test_pruning_keeps_what_was_just_written_before_what_is_damaged(tmp_path):
    checkpoint.save(tmp_path, 9, simple(9), {}, keep=2)
    checkpoint.save(tmp_path, 12, simple(12), {}, keep=2)
    damaged(tmp_path / "update-000000012" / "state.pt", "middle")
    checkpoint.save(tmp_path, 10, simple(10), {}, keep=1)  # a run that fell back to 9 and was stopped at 10
    assert [path.name for path in tmp_path.iterdir()] == ["update-000000010"]


def test_checkpoints_are_ordered_by_number_and_other_folders_are_left_alone(tmp_path):
    (tmp_path / "update-000000012 copy").mkdir()
    checkpoint.save(tmp_path, 999_999_999, simple(1), {}, keep=1)
    checkpoint.save(tmp_path, 1_000_000_000, simple(2), {}, keep=1)
    assert checkpoint.newest(tmp_path)[1]["model"]["w"][0] == 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["update-000000012 copy", "update-1000000000"]


# ---- full disks ----


@posix
@pytest.mark.slow
def test_the_command_line_explains_a_full_disk_and_the_run_goes_on(tmp_path):
    import resource

    trained(tmp_path / "before")  # fills Numba's cache, whose files would not fit either
    collect = dataclasses.replace(TINY.collect, replay=450)  # its largest file has 54,000 bytes, a checkpoint has more
    (tmp_path / "config.json").write_text(json.dumps(to_dict(dataclasses.replace(TINY, threads=1, collect=collect))))
    command = [str(Path(sys.executable).with_name("mtbench")), "train", TINY.env_id, "--config", "config.json"]
    small = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))}
    for code, limit in ((2, small), (0, {})):
        done = subprocess.run(
            [*command, "--out", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=300, **limit
        )
        said = " ".join(done.stderr.split())
        assert done.returncode == code, said
        assert ("error: The disk is full: run/checkpoints/update-000000003 could not be written" in said) == bool(code)
        assert "Traceback" not in said
    assert saved(tmp_path / "run") == ["update-000000009", "update-000000012"]


@pytest.mark.parametrize("where", ["savez", "log"])
def test_a_full_disk_anywhere_leaves_a_run_that_goes_on(tmp_path, monkeypatch, where):
    trained(tmp_path, updates=6)
    trainer = Trainer(TINY, tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if where == "savez":
        monkeypatch.setattr(np, "savez", full)
    else:
        monkeypatch.setattr(trainer.log, "write", full)
    with pytest.raises(DiskFullError, match="run the same command again"):
        trainer.run()
    monkeypatch.undo()
    assert saved(tmp_path) == ["update-000000003", "update-000000006"]
    assert going_on(TINY, tmp_path).learner.updates == 12


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_replay_that_does_not_fit_the_disk_is_refused_before_training(tmp_path, monkeypatch):
    """Its files are sparse and mapped into memory: writing to one on a full disk would kill the process."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFullError, match=r"replay/observations\.bin"):
        Trainer(TINY, tmp_path)
    monkeypatch.undo()
    assert not list((tmp_path / "replay").iterdir())
    assert going_on(TINY, tmp_path).learner.updates == 12
    file = tmp_path / "replay" / "observations.bin"
    assert file.stat().st_blocks * 512 >= file.stat().st_size


def test_a_disk_that_is_too_small_is_refused_with_the_bytes_that_are_needed(tmp_path, monkeypatch):
    needed = (2000 + 30) * (30 * 4 + 8 + 4)  # the replay, and what the undo log may hold
    for free, refused in ((needed - 1, True), (needed, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        if refused:
            with pytest.raises(DiskFullError, match=rf"{needed:,} bytes are needed in .*replay, {free:,} are free"):
                Trainer(TINY, tmp_path)
            assert not list((tmp_path / "replay").iterdir())
        else:
            Trainer(TINY, tmp_path).close()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed // 8))
    Trainer(TINY, tmp_path).close()  # its files are there already
