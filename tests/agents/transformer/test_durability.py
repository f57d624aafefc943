"""Training runs survive signals in every phase, failures and each other.

No test waits for the right moment: the run under test sends the signal to itself at a chosen place.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from mtbench_agents.training import checkpoint
from mtbench_agents.training.settings import to_dict
from mtbench_agents.transformer import train as train_module
from mtbench_agents.transformer.config import from_dict
from mtbench_agents.transformer.learner import NonFiniteLossError
from mtbench_agents.transformer.train import Trainer

from mtbench.errors import UsageError

from .test_train import TINY, trained, weights

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and limits")

TIMING = ("seconds", "cpu_seconds", "updates_per_second", "steps_per_second", "tokens_per_second", "flop_utilization")


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
import json, os, signal, sys, threading, time, torch
from pathlib import Path
torch.set_num_threads(1)
import numpy as np
from mtbench_agents.transformer import collector, learner, train
from mtbench import cli

phase, out, config = sys.argv[1:4]
owner, name, is_time = {
    "collecting first": (collector.Collector, "_step", lambda: len(calls) == 5),
    "collecting": (collector.Collector, "_step", lambda: len(calls) == 100),
    "collecting, which gets the signal": (collector.Collector, "_step", lambda: len(calls) == 100),
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
            if phase == "collecting, which gets the signal":
                signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            else:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)  # in the background collector: the main thread hears of it before the next step
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
    "collecting, which gets the signal": {"sync": False, "collect": {"steps_per_update": 1e6}},
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
    assert int((tmp_path / "run.after").read_text()) <= (2 if PHASES[phase].get("sync") is False else 0)
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
