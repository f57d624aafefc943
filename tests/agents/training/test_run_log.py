"""Logs besides log.jsonl show the same numbers, and are refused before any work if they cannot."""

import dataclasses
import sys
import types

import gymnasium as gym
import pytest
from mtbench_agents.training import run_log
from mtbench_agents.transformer.train import Trainer

from mtbench.errors import UsageError
from tests.agents.transformer.test_train import TINY


def test_flat_names_nested_numbers():
    nested = {"updates": 3, "returns": [0.5, 1], "evaluation": {"RepeatFirstEasy": 0.25}}
    assert dict(run_log.flat(nested)) == {
        "updates": 3.0,
        "returns/1": 0.5,
        "returns/2": 1.0,
        "evaluation/RepeatFirstEasy": 0.25,
    }


def test_tensorboard_shows_what_the_log_says(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = Trainer(dataclasses.replace(TINY, loggers=("tensorboard",)), tmp_path)
    trainer.run()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    lines = trainer.log.read()
    for name in ("updates", "critic", "returns/1"):
        shown = events.Scalars(name)
        assert [event.step for event in shown] == [line["steps"] for line in lines]
        assert [event.value for event in shown] == pytest.approx([dict(run_log.flat(line))[name] for line in lines])


def test_wandb_is_told_once_and_resumed_by_id(tmp_path, monkeypatch):
    calls = []

    class Run:
        id = "abc123"

        def define_metric(self, *args, **kwargs):
            calls.append(("define_metric", args, kwargs))

        def log(self, numbers):
            calls.append(("log", numbers))

    def init(**kwargs):
        calls.append(("init", kwargs))
        return Run()

    fake = types.ModuleType("wandb")
    fake.init = init
    fake.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for known in (None, "abc123"):
        (logger,) = run_log.make_loggers(("wandb",), tmp_path, {"seed": 1})
        assert calls[0][1]["id"] == known
        assert calls[0][1]["config"] == {"seed": 1}
        calls.clear()
    logger(40, {"updates": 2.0})
    assert calls == [("log", {"updates": 2.0, "steps": 40})]


def test_unknown_and_missing_loggers_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"tensorbord.*tensorboard"):
        run_log.make_loggers(("tensorbord",), tmp_path, {})
    monkeypatch.setattr(run_log.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r"pip install 'mtbench-rl\[wandb\]'"):
        run_log.make_loggers(("wandb",), tmp_path, {})
