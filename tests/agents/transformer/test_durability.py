"""Training runs survive signals in every phase, damage, full disks and each other. No test waits for a moment to come:
the run under test sends the signal to itself at a place of our choosing."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mtbench_agents.transformer import checkpoint
from mtbench_agents.transformer import train as train_module
from mtbench_agents.transformer.config import from_dict, to_dict
from mtbench_agents.transformer.learner import NonFiniteLossError
from mtbench_agents.transformer.policy import load_run
from mtbench_agents.transformer.run_log import RunLog
from mtbench_agents.transformer.train import Trainer

from mtbench.errors import UsageError
from mtbench.evaluation import evaluate
from mtbench.files import DiskFullError
from mtbench.policy import fingerprint

from .test_train import TINY, trained, weights

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and limits")

TIMING = ("seconds", "updates_per_second", "steps_per_second", "tokens_per_second", "flop_utilization")


def lines(trainer):
    return [{k: v for k, v in line.items() if k not in TIMING} for line in trainer.log.read()]


def saved(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def going_on(config, folder):
    trainer = Trainer(config, folder)
    trainer.run()
    return trainer


# ---- signals ----

# The command line, in a process that sends itself SIGTERM after a call of our choosing and says how many followed.
SIGNALLED = """
import json, os, signal, sys, torch
from pathlib import Path
torch.set_num_threads(1)
import numpy as np
from mtbench_agents.transformer import collector, learner, train
from mtbench import cli

phase, out, config = sys.argv[1:4]
owner, name, is_time = {
    "collecting first": (collector.Collector, "_step", lambda: len(calls) == 5),
    "collecting": (collector.Collector, "_step", lambda: len(calls) == 100),
    "learning": (learner.Learner, "update", lambda: len(calls) == 7),
    "evaluating": (train.TransformerPolicy, "act", lambda: any(Path(out).glob("evaluations/*/.partial/shard-*"))),
    "saving": (np, "savez", lambda: True),
}[phase]
call, calls, after = getattr(owner, name), [], []

def counted(*arguments, **kwargs):
    calls.append(1)
    result = call(*arguments, **kwargs)
    if after or is_time():
        if not after:
            os.kill(os.getpid(), signal.SIGTERM)
        Path(out + ".after").write_text(str(len(after)))
        after.append(1)
    return result

setattr(owner, name, counted)
Path("config.json").write_text(config)
env_id = json.loads(config)["env_id"]
sys.argv = ["mtbench", "train", env_id, "--config", "config.json", "--out", out]
cli.main()
"""

FOREVER = 10**9

# For each phase: settings under which it would last for minutes.
PHASES = {
    "collecting first": {"collect": {"first_steps": FOREVER}},
    "collecting": {"sync": False, "collect": {"steps_per_update": 1e6}},
    "learning": {"updates": FOREVER, "round_updates": FOREVER},
    "evaluating": {"evaluate_rounds": 1, "evaluate_rollouts": 1000},
    "saving": {"updates": FOREVER},
}


@posix
@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_sigterm_saves_at_once_in_every_phase(tmp_path, phase):
    content, changes = to_dict(TINY), PHASES[phase]
    config = from_dict({**content, **changes, "collect": {**content["collect"], **changes.get("collect", {})}})
    arguments = [sys.executable, "-c", SIGNALLED, phase, "run", json.dumps(to_dict(config))]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 143, done.stderr
    assert "The same command goes on" in " ".join(done.stderr.split())
    # The background collector may take a step while the main thread hears of the signal.
    assert int((tmp_path / "run.after").read_text()) <= (2 if phase == "collecting" else 0)
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")) == []

    (newest,) = saved(tmp_path / "run")
    state = checkpoint.load_state(tmp_path / "run" / "checkpoints" / newest)
    if phase == "collecting first":
        assert (state["updates"], state["steps"]) == (0, 5 * TINY.collect.num_envs)
    if phase == "learning":
        assert state["updates"] == 7
    if phase == "evaluating":
        assert state["updates"] == 3
        assert list((tmp_path / "run" / "evaluations" / "update-000000003").rglob("shard-*.parquet"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = Trainer(config, tmp_path / "run")
    assert (trainer.learner.updates, trainer.collector.steps) == (state["updates"], state["steps"])
    trainer.close()


def stopping(owner, name, trainer, monkeypatch, is_time):
    """Have a run stop in the first call of a function that finds it is time; the calls are in what is returned."""
    original, calls = getattr(owner, name), []

    def call(*arguments, **kwargs):
        calls.append(1)
        if is_time():
            trainer.stop.set()
        return original(*arguments, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return calls


def shards(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("evaluations/*/.partial/shard-*.parquet")}


EVALUATED = {"evaluate_rounds": 2, "evaluate_rollouts": 70}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("uninterrupted") / "run", **EVALUATED)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["evaluating", "evaluating, shards kept", "saving", "collecting"])
def test_a_run_stopped_at_a_checkpoint_is_the_run_it_would_have_been(tmp_path, monkeypatch, where, uninterrupted):
    config, folder = dataclasses.replace(TINY, **EVALUATED), tmp_path / "run"
    trainer = Trainer(config, folder)
    owner, name, is_time = {
        "evaluating": (train_module.TransformerPolicy, "act", lambda: True),
        "evaluating, shards kept": (train_module.TransformerPolicy, "act", lambda: bool(shards(folder))),
        "saving": (np, "savez", lambda: trainer.learner.updates == 9),
        "collecting": (trainer.collector, "_step", lambda: trainer.learner.updates == 9),
    }[where]
    stopping(owner, name, trainer, monkeypatch, is_time)
    assert trainer.run() is False
    assert trainer.learner.updates == (6 if "evaluating" in where else 9)
    monkeypatch.undo()
    resumed = going_on(config, folder)
    for key, value in weights(uninterrupted).items():
        assert torch.equal(value, weights(resumed)[key]), key
    assert lines(uninterrupted) == lines(resumed)
    assert [line["updates"] for line in lines(resumed) if "evaluation" in line] == [6, 12]


def test_the_shards_of_a_stopped_evaluation_are_not_played_again(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, updates=3, evaluate_rounds=1, evaluate_rollouts=200)
    trainer = Trainer(config, tmp_path / "run")
    stopping(train_module.TransformerPolicy, "act", trainer, monkeypatch, lambda: bool(shards(tmp_path / "run")))
    assert trainer.run() is False
    kept = shards(tmp_path / "run")
    assert kept
    monkeypatch.undo()
    again = Trainer(config, tmp_path / "run")
    calls = stopping(train_module.TransformerPolicy, "act", again, monkeypatch, lambda: len(calls) == 20)
    assert again.run() is False
    assert len(calls) == 20, "no step is played after the stop"
    assert shards(tmp_path / "run") == kept
    monkeypatch.undo()
    assert going_on(config, tmp_path / "run").log.read()[-1]["evaluation"]


def test_a_first_collection_goes_on_with_other_rollouts(tmp_path):
    config = dataclasses.replace(TINY, collect=dataclasses.replace(TINY.collect, first_steps=600))
    trainer = Trainer(config, tmp_path)
    step = trainer.collector._step

    def stop_at_300(model):
        found = step(model)
        if trainer.collector.steps >= 300:
            trainer.stop.set()
        return found

    trainer.collector._step = stop_at_300
    assert trainer.run() is False
    assert len(trainer.replay) > 0
    resumed = going_on(config, tmp_path)
    assert resumed.learner.updates == 12
    replay = resumed.replay
    starts = [replay.observations[start : start + length + 1].tobytes() for start, length in held(replay)]
    assert len(set(starts)) == len(starts) > len(trainer.replay)


def held(replay):
    places = np.arange(replay._oldest, replay._newest) % len(replay._starts)
    return zip(replay._starts[places].tolist(), replay._lengths[places].tolist(), strict=True)


def test_learning_that_fails_does_not_wait_for_the_collector(tmp_path):
    collect = dataclasses.replace(TINY.collect, steps_per_update=1e6)
    trainer = Trainer(dataclasses.replace(TINY, sync=False, collect=collect), tmp_path)

    def failing(slices):
        raise NonFiniteLossError("actor is nan")

    trainer.learner.update = failing
    with pytest.raises(NonFiniteLossError):
        trainer.run()
    assert trainer.collector.steps < 1e6


def test_evaluations_beyond_the_checkpoint_are_made_anew(tmp_path):
    """Collecting beside learning, a resumed run takes other steps: its evaluations would be refused as others'."""
    changes = {"sync": False, "checkpoint_rounds": 2, "evaluate_rounds": 1, "evaluate_rollouts": 1, "updates": 9}
    trained(tmp_path, **changes)
    for newest in saved(tmp_path)[1:]:
        shutil.rmtree(tmp_path / "checkpoints" / newest)
    again = going_on(dataclasses.replace(TINY, **changes), tmp_path)
    assert [line["updates"] for line in again.log.read() if "evaluation" in line] == [3, 6, 9]


# ---- one at a time ----


def test_a_second_run_in_the_folder_is_refused_and_changes_nothing(tmp_path):
    trainer = Trainer(TINY, tmp_path)
    trainer.log.write({"updates": 5})
    with pytest.raises(UsageError, match=f"Process {os.getpid()} trains in"):
        Trainer(TINY, tmp_path)
    assert trainer.log.read() == [{"updates": 5}]
    trainer.close()
    Trainer(TINY, tmp_path).close()


def test_a_run_that_cannot_begin_lets_others_in(tmp_path):
    trained(tmp_path, updates=3)
    for _ in range(2):
        with pytest.raises(UsageError, match="other settings"):
            Trainer(dataclasses.replace(TINY, seed=1), tmp_path)


def test_leftovers_are_swept_and_a_recurring_process_id_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)
    left = [tmp_path / "checkpoints" / f".update-00000000{n}.7.tmp" for n in (3, 6)]
    left += [tmp_path / "best" / "checkpoints" / ".update-000000003.7-0123abcd.tmp", tmp_path / ".log.jsonl.7.tmp"]
    for path in left:
        path.mkdir(parents=True)
        (path / "state.pt").write_text("half")
    Trainer(TINY, tmp_path).close()
    assert not any(path.exists() for path in left)
    left[0].mkdir()  # and should one appear while it runs
    trainer = going_on(TINY, tmp_path)
    assert trainer.learner.updates == 12


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

    (tmp_path / "config.json").write_text(json.dumps(to_dict(dataclasses.replace(TINY, threads=1))))
    command = [str(Path(sys.executable).with_name("mtbench")), "train", TINY.env_id, "--config", "config.json"]
    small = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))}
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
    config = dataclasses.replace(TINY, collect=dataclasses.replace(TINY.collect, replay_on_disk=True))
    with pytest.raises(DiskFullError, match=r"replay/observations\.npy"):
        Trainer(config, tmp_path)
    monkeypatch.undo()
    assert not list((tmp_path / "replay").iterdir())
    assert going_on(config, tmp_path).learner.updates == 12
    file = tmp_path / "replay" / "observations.npy"
    assert file.stat().st_blocks * 512 >= file.stat().st_size
