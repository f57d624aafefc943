"""A checkpoint changes nothing: rollouts go on through it, and a run that is killed after it is the run it would have
been.
"""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from mtbench_agents.transformer.collector import Collector
from mtbench_agents.transformer.train import Trainer
from mtbench_agents.transformer.trees import leaves

from .test_collector import continuous, setting
from .test_durability import going_on, lines
from .test_train import TINY, trained, weights

# Rollouts last for several checkpoints, and the ring is overwritten several times between two.
CROWDED = dataclasses.replace(
    TINY,
    checkpoint_rounds=2,
    env={"tasks": ["RepeatFirstEasy", "MineSweeperEasy"]},
    collect=dataclasses.replace(TINY.collect, replay=330, steps_per_update=70.0),
)


class Killed(BaseException):
    pass


def killed_at(config, folder, update):
    """A run that ends without a word before an update."""
    trainer = Trainer(config, folder)
    original = trainer.learner.update

    def counted(slices):
        if trainer.learner.updates == update:
            raise Killed
        return original(slices)

    trainer.learner.update = counted
    with pytest.raises(Killed):
        trainer.run()


def same(one, two):
    first, second = weights(one), weights(two)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert one.collector.steps == two.collector.steps
    batches = [trainer.replay.sample(64, 20, np.random.default_rng(0)) for trainer in (one, two)]
    for field in dataclasses.fields(batches[0]):
        assert all(map(np.array_equal, *(leaves(getattr(batch, field.name)) for batch in batches))), field.name


def test_a_checkpoint_changes_nothing(tmp_path):
    config = dataclasses.replace(TINY, env={"tasks": ["RepeatFirstEasy"]})
    often, once = (trained(tmp_path / str(n), env=config.env, checkpoint_rounds=n) for n in (1, 4))
    same(often, once)


def test_a_killed_run_goes_on_from_its_checkpoint_as_if_nothing_had_happened(tmp_path):
    whole = going_on(CROWDED, tmp_path / "whole")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        killed_at(CROWDED, tmp_path / "cut", 11)
        assert (tmp_path / "cut" / "replay" / "undo.bin").stat().st_size > 1000
        killed_at(CROWDED, tmp_path / "cut", 8)  # from the checkpoint at 6, once more
        resumed = going_on(CROWDED, tmp_path / "cut")
    same(whole, resumed)
    assert lines(whole) == lines(resumed)


def test_unfinished_rollouts_are_kept(tmp_path):
    trainer = Trainer(CROWDED, tmp_path)
    trainer.run()
    lengths = trainer.collector._length.copy()
    assert lengths.max() > 10
    resumed = Trainer(CROWDED, tmp_path)
    assert np.array_equal(resumed.collector._length, lengths)
    for i, length in enumerate(lengths):
        for name in ("_observations", "_actions", "_rewards"):
            count = length + (name == "_observations")
            before, after = (getattr(t.collector, name)[:count, i] for t in (trainer, resumed))
            assert np.array_equal(before, after), name


def test_a_checkpoint_of_an_earlier_version_begins_new_rollouts(tmp_path, monkeypatch):
    monkeypatch.setattr(Collector, "state", lambda self: {})
    trained(tmp_path, updates=6)
    monkeypatch.undo()
    resumed = Trainer(TINY, tmp_path)
    assert (resumed.collector._length == 0).all()
    assert resumed.collector.steps > 100
    assert resumed.run()


# ---- the collector alone ----


@pytest.mark.parametrize("steps", [0, 1, 7, 100, 333])
@pytest.mark.parametrize("engine", [True, False])
def test_a_restored_collector_goes_on_alike(steps, engine):
    from mtbench.vector import make_vec

    _, model, collector = setting(n=5)
    tasks = ["MineSweeperEasy", "PositionOnlyCartPoleEasy"]

    def made():
        if not engine:
            return setting(n=5)[2]
        envs = make_vec("MTPOPGym-v0", 5, tasks=tasks)
        return Collector(envs, collector.config, 0, collector.device)

    whole, resumed = made(), made()
    list(whole.collect(model, steps))
    state = {name: value.copy() for name, value in whole.state().items()}
    list(resumed.collect(model, 50))  # wherever it was
    resumed.load_state(state, model)
    one, two = (list(each.collect(model, 400)) for each in (whole, resumed))
    assert len(one) == len(two) > 3
    for (a, returns_a), (b, returns_b) in zip(one, two, strict=True):
        for name in ("observations", "actions", "rewards"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
        assert np.array_equal(returns_a, returns_b)
        assert a.terminated == b.terminated


def test_a_held_value_goes_on_through_a_checkpoint():
    (_, model, whole), (_, _, resumed) = (continuous(epsilon_hold=20) for _ in range(2))
    whole._curiosity[:] = 1.0
    list(whole.collect(model, 50))
    state = {name: value.copy() for name, value in whole.state().items()}
    assert np.isfinite(state["unfinished.held"]).any()
    resumed.load_state(state, model)
    played = [[r.actions for r, _ in each.collect(model, 200)] for each in (whole, resumed)]
    assert len(played[0]) > 3
    assert all(map(np.array_equal, *played))
    del state["unfinished.held"]  # of an earlier version
    resumed.load_state(state, model)
    assert list(resumed.collect(model, 200))


@pytest.mark.parametrize("name", ["observation", "rewards"])
def test_environments_that_do_not_repeat_themselves_begin_anew_with_a_warning(name):
    _, model, collector = setting(n=5)
    list(collector.collect(model, 104))
    state = {name: value.copy() for name, value in collector.state().items()}
    state[f"unfinished.{name}"][0, 0] += 1
    with pytest.warns(UserWarning, match="do not repeat the unfinished rollouts"):
        collector.load_state(state, model)
    assert (collector._length == 0).all()
    assert len(list(collector.collect(model, 400))) > 3


# ---- a warning ----


def test_clipped_targets_are_warned_of_once_in_a_run(tmp_path):
    def watched(share, folder, updates):
        trainer = Trainer(dataclasses.replace(TINY, updates=updates), folder)
        update = trainer.learner.update
        trainer.learner.update = lambda slices: {**update(slices), "clipped": torch.tensor(share)}
        return trainer

    message = r"2.0% .*raise model\.bin_limit \(1000\) or lower learning\.reward_multiplier \(100\)"
    with pytest.warns(UserWarning, match=message) as caught:
        watched(0.02, tmp_path / "run", 6).run()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watched(0.02, tmp_path / "run", 9).run()
        watched(0.01, tmp_path / "other", 6).run()
