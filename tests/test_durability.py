"""Evaluations survive signals, kills, damage, full disks and each other. Nothing here waits for a moment to come: the
policy under evaluation sends the signal itself, or waits until the test says go."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest

from mtbench import files, locking, records
from mtbench.errors import UsageError
from mtbench.evaluation import Case, evaluate
from mtbench.files import DiskFullError, full_disk_explained, sweep, write_atomically, write_json
from mtbench.journal import Journal
from mtbench.locking import LOCK, FolderLock
from mtbench.records import read_run

MTBENCH = str(Path(sys.executable).with_name("mtbench"))
SHORT = ["RepeatFirstEasy", "PositionOnlyCartPoleEasy", "MineSweeperEasy"]
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and limits")


def quick(out, policy="random", **kwargs):
    arguments = {"rollouts_per_task": 5, "num_envs": 2, "env_kwargs": {"tasks": SHORT}, "jobs": 1, **kwargs}
    return evaluate("MTPOPGym-v0", policy, out, **arguments)


def interrupt_after(rollouts):
    def report(done, total):
        if done == rollouts:
            raise KeyboardInterrupt

    return report


def interrupted(out, rollouts=9):
    with pytest.raises(KeyboardInterrupt):
        quick(out, on_rollout=interrupt_after(rollouts))
    return out / ".partial"


# ---- writing ----


def test_a_file_is_on_disk_before_its_name_and_its_name_before_it_returns(tmp_path, monkeypatch):
    done = []
    replace, fsync = os.replace, os.fsync

    def noted_fsync(descriptor):
        done.append("folder" if os.path.samestat(os.fstat(descriptor), tmp_path.stat()) else "file")
        fsync(descriptor)

    def noted_replace(*paths):
        done.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_atomically(tmp_path / "file", lambda temporary: temporary.write_text("content"))
    assert done == ["file", "rename", "folder"]


def test_a_recurring_process_id_neither_blocks_nor_collides(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)
    (tmp_path / ".file.7.tmp").mkdir()  # what a killed writer of that id left under an earlier version's name
    write_json(tmp_path / "file", 1)
    assert (tmp_path / "file").read_text() == "1\n"
    assert files.temporary_path(tmp_path / "file") != files.temporary_path(tmp_path / "file")


def test_sweeping_takes_leftovers_alone(tmp_path):
    kept = ["file", ".file.tmp", "file.7.tmp", ".file.7-0123abcd.tmp.txt", ".other.7-0123abcd.tmp"]
    for name in [*kept, ".file.7.tmp", ".file.8-0123abcd.tmp"]:
        (tmp_path / name).write_text("")
    (tmp_path / ".file.9-0123abcd.tmp").mkdir()
    (tmp_path / ".file.9-0123abcd.tmp" / "inside").write_text("")
    sweep(tmp_path, ["file"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    sweep(tmp_path)
    assert not (tmp_path / ".other.7-0123abcd.tmp").exists()
    sweep(tmp_path / "nowhere")


def test_leftovers_of_killed_writers_are_swept_when_an_evaluation_starts(tmp_path):
    partial = interrupted(tmp_path / "run")
    left = [partial / ".shard-00001.parquet.7-0123abcd.tmp", tmp_path / "run" / ".manifest.json.7-0123abcd.tmp"]
    for path in left:
        path.write_text("half")
    quick(tmp_path / "run")
    assert not any(path.exists() for path in left)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [records.EPISODES, records.MANIFEST]


# ---- shards ----


@pytest.fixture
def cut(tmp_path):
    """An evaluation with one finished shard: its journal's folder, settings and cases."""
    frame = pd.DataFrame(
        {
            **{"suite": "popgym", "split": "test", "task": ["A", "A", "B", "B"], "variant": [3, 4, 5, 6]},
            **{"rollout": 0, "attempt": [1, 2, 1, 2], "return": [0.5, 0.25, -1.0, 1.0], "length": [9, 8, 7, 6]},
            **{"success": None, "agent": "a", "train_seed": None, "step": None},
        }
    ).astype(records.COLUMNS)[list(records.COLUMNS)]
    path, settings = tmp_path / "run" / ".partial", {"agent": "a", "seed": 3}
    shard = [Case("A", 0, 1, (3, 4)), Case("B", 0, 2, (5, 6))]
    with Journal(path, settings) as written:
        written.add(0, frame, 1.5)
    return path, settings, shard, frame


def flips(path):
    """The file with one flipped bit, in every byte, each bit of a byte in turn."""
    whole = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for i, byte in enumerate(whole):
            for changed in (byte ^ (1 << (i % 8)), byte):
                file.seek(i)
                file.write(bytes([changed]))
                if changed != byte:
                    yield i
    assert path.read_bytes() == whole


def test_every_flipped_bit_of_a_shard_is_noticed(cut):
    path, settings, shard, frame = cut
    with Journal(path, settings) as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found.has(0, shard)
        pd.testing.assert_frame_equal(found.frames(), frame)
        for _ in flips(path / "shard-00000.parquet"):
            assert not found.has(0, shard)


def test_every_flipped_bit_of_a_plan_is_noticed_or_harmless(cut):
    path, settings, shard, _ = cut
    plan, noticed = path / "plan.json", 0
    for _ in flips(plan):
        try:
            with Journal(path, settings) as found:
                assert found.has(0, shard)
                assert found.times()["seconds"] == 1.5
        except UsageError:
            noticed += 1
    assert noticed > 0.7 * plan.stat().st_size, "white space alone may change"


def test_a_flipped_bit_is_played_again_to_the_same_records(tmp_path):
    whole = quick(tmp_path / "whole")
    shard = interrupted(tmp_path / "cut") / "shard-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 4
    shard.write_bytes(content)
    with pytest.warns(UserWarning, match="Playing shard 0 again"):
        resumed = quick(tmp_path / "cut")
    pd.testing.assert_frame_equal(resumed.episodes, whole.episodes)


def test_a_shard_without_a_checksum_is_played_again(cut):
    path, settings, shard, frame = cut
    records.write_frame(path / "shard-00001.parquet", frame)  # as a kill between the shard and the plan leaves it
    with Journal(path, settings) as found, pytest.warns(UserWarning, match="Playing shard 1 again"):
        assert not found.has(1, shard)


# ---- nothing is left where nothing was done ----


def failing(observation):
    raise RuntimeError("broken policy")


@pytest.mark.parametrize("existing", [(), ("a",), ("a", "a/b/run")])
def test_an_evaluation_that_fails_before_its_first_shard_leaves_nothing(tmp_path, existing):
    for folder in existing:
        (tmp_path / folder).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RuntimeError, match="broken policy"):
        quick(tmp_path / "a/b/run", policy=failing)
    assert sorted(tmp_path.rglob("*")) == before


def test_shards_left_beside_a_finished_run_are_removed(tmp_path):
    quick(tmp_path / "run")
    (tmp_path / "run" / ".partial").mkdir()
    (tmp_path / "run" / ".partial" / "shard-00000.parquet").write_text("")
    quick(tmp_path / "run")
    assert not (tmp_path / "run" / ".partial").exists()


# ---- one at a time ----


def test_a_lock_refuses_the_second_and_names_the_first(tmp_path):
    lock = FolderLock(tmp_path, "evaluates into")
    with pytest.raises(UsageError, match=f"Process {os.getpid()} evaluates into .*tmp"):
        FolderLock(tmp_path, "evaluates into")
    lock.release()
    lock.release()
    FolderLock(tmp_path, "evaluates into").release()
    assert not (tmp_path / LOCK).exists()


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    take, calls = locking._lock, []

    def late(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / LOCK).unlink()  # as its former holder does on release
        return take(descriptor)

    monkeypatch.setattr(locking, "_lock", late)
    lock = FolderLock(tmp_path, "evaluates into")
    assert len(calls) == 2
    with pytest.raises(UsageError, match="Process"):
        FolderLock(tmp_path, "evaluates into")
    lock.release()


def test_what_a_killed_process_locked_is_free(tmp_path):
    """Although a child that it forked lives on."""
    code = (
        "import os, signal, sys; from pathlib import Path; from mtbench.locking import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1]), 'trains in')\n"
        "if os.name == 'posix' and not os.fork():\n"
        "    print('forked', flush=True); sys.stdin.read(); os._exit(0)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if os.name == "posix":
            assert holder.stdout.readline() == b"forked\n"
        with pytest.raises(UsageError, match=f"Process {holder.pid} trains in"):
            FolderLock(tmp_path, "trains in")
        holder.kill()
        holder.wait()
        FolderLock(tmp_path, "trains in").release()
        holder.stdin.close()


def test_a_journal_refuses_a_second_evaluation_and_one_that_was_finished_meanwhile(tmp_path):
    with Journal(tmp_path / ".partial", {}), pytest.raises(UsageError, match="evaluates into"):
        Journal(tmp_path / ".partial", {})
    (tmp_path / records.MANIFEST).write_text("{}")
    with pytest.raises(UsageError, match="has just finished"):
        Journal(tmp_path / ".partial", {})
    assert not (tmp_path / ".partial").exists()


# ---- full disks ----


def test_a_full_disk_is_explained_and_the_evaluation_goes_on_afterwards(tmp_path, monkeypatch):
    whole = quick(tmp_path / "whole")
    write, written = records.write_frame, []

    def full(path, frame):
        if len(written) == 1:
            write_atomically(path, lambda temporary: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        written.append(path)
        write(path, frame)

    monkeypatch.setattr(records, "write_frame", full)
    with pytest.raises(DiskFullError, match=r"disk is full: .*shard-00001\.parquet .*run the same command again"):
        quick(tmp_path / "run")
    monkeypatch.undo()
    played = []
    resumed = quick(tmp_path / "run", on_rollout=lambda done, total: played.append(done))
    assert played[0] == 8, "the first shard is not played again"
    pd.testing.assert_frame_equal(resumed.episodes, whole.episodes)


def test_other_errors_of_the_disk_are_left_alone(tmp_path):
    with pytest.raises(PermissionError), full_disk_explained(tmp_path):
        raise PermissionError(13, "Permission denied")


def limited(size):
    """For a process whose files may not grow beyond a size: what a full disk looks like, without one."""
    import resource

    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def heed_interrupts():
    """A shell starts what runs in its background with SIGINT ignored, and so all that these tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def mtbench(*arguments, cwd, **kwargs):
    done = subprocess.run([MTBENCH, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs)
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join(done.stderr.split())


@posix
def test_the_command_line_explains_a_full_disk(tmp_path):
    command = ("evaluate", "MTPOPGym-v0", "--rollouts-per-task", "2", '--env=tasks=["RepeatFirstEasy"]', "--out")
    assert mtbench(*command, "whole", cwd=tmp_path)[0] == 0
    code, said = mtbench(*command, "run", cwd=tmp_path, preexec_fn=limited(1000))
    assert code == 2
    assert "error: The disk is full: run/.partial/shard-00000.parquet could not be written" in said
    assert not (tmp_path / "run").exists()
    assert mtbench(*command, "run", cwd=tmp_path)[0] == 0


# ---- signals ----

# Plays like a fixed policy, and sends its own process a signal once so many shards are on disk; or waits there.
POLICY = """
import os, signal
from pathlib import Path

def act(observation):
    shards, what = os.environ.get("SHARDS"), os.environ.get("WHAT")
    if what and len(list(Path("run/.partial").glob("shard-*.parquet"))) >= int(shards):
        if what == "WAIT":
            print("waiting", flush=True)
            input()
        os.kill(os.getpid(), getattr(signal, what))
    return 0
"""


@posix
def test_signals_and_the_same_command_again(tmp_path):
    (tmp_path / "mine.py").write_text(POLICY)
    command = ("evaluate", "MTPOPGym-v0", "--policy", "mine.py:act", "--rollouts-per-task", "20", "--num-envs", "2")
    arguments = (*command, "--jobs", "1", '--env=tasks=["MineSweeperEasy","RepeatFirstEasy"]', "--out")
    shards = tmp_path / "run" / ".partial"
    kept = {}
    for what, count, code in (("SIGINT", 1, 130), ("SIGTERM", 2, 143), ("SIGKILL", 3, -9)):
        environment = {**os.environ, "SHARDS": str(count), "WHAT": what}
        ended, said = mtbench(*arguments, "run", cwd=tmp_path, env=environment, preexec_fn=heed_interrupts)
        assert ended == code
        assert ("rerun the same command" in said) == (what != "SIGKILL")
        assert all((shards / name).stat().st_mtime_ns == stamp for name, stamp in kept.items())
        kept = {path.name: path.stat().st_mtime_ns for path in shards.glob("shard-*.parquet")}
        assert len(kept) == count
        assert "has not finished" in mtbench("score", "run", cwd=tmp_path)[1]
    assert mtbench(*arguments, "run", cwd=tmp_path)[0] == 0
    assert mtbench(*arguments, "whole", cwd=tmp_path)[0] == 0
    pd.testing.assert_frame_equal(read_run(tmp_path / "run").episodes, read_run(tmp_path / "whole").episodes)


@posix
def test_a_second_evaluation_is_refused_until_the_first_is_killed(tmp_path):
    (tmp_path / "mine.py").write_text(POLICY)
    arguments = ("evaluate", "MTPOPGym-v0", "--policy", "mine.py:act", "--rollouts-per-task", "2", "--num-envs", "2")
    arguments += ('--env=tasks=["RepeatFirstEasy"]', "--out", "run")
    environment = {**os.environ, "SHARDS": "0", "WHAT": "WAIT"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([MTBENCH, *arguments], cwd=tmp_path, env=environment, **pipes) as first:
        assert first.stdout.readline() == b"waiting\n"
        code, said = mtbench(*arguments, cwd=tmp_path)
        assert code == 2
        assert f"Process {first.pid} evaluates into run" in said
        first.send_signal(signal.SIGKILL)
    assert mtbench(*arguments, cwd=tmp_path)[0] == 0
