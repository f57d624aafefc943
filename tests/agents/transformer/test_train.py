"""The loop: resumed runs are the runs they would have been, and no kill leaves one that cannot go on."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
import torch
from mtbench_agents.training import checkpoint, validation
from mtbench_agents.training.settings import to_dict, updated
from mtbench_agents.training.validation import selection_score
from mtbench_agents.transformer import train as train_module
from mtbench_agents.transformer.config import TrainConfig, from_dict, preset, read_config
from mtbench_agents.transformer.learner import NonFiniteLossError
from mtbench_agents.transformer.policy import load_run
from mtbench_agents.transformer.prefetch import prefetched
from mtbench_agents.transformer.train import Trainer

from mtbench.errors import UsageError
from mtbench.options import parsed_options
from mtbench.records import read_run
from mtbench.scoring.references import load_references
from mtbench.suite import load_suite
from tests import toy

TINY = updated(
    preset("debug"),
    {
        "env.tasks": ["MineSweeperEasy", "PositionOnlyCartPoleEasy"],
        "sync": True,
        "updates": 12,
        "round_updates": 3,
        "checkpoint_rounds": 1,
        "evaluate_rounds": 0,
        "collect.num_envs": 3,
        "collect.first_steps": 100,
        "collect.replay": 2000,
        "collect.steps_per_update": 10.0,
        "model.dropout": 0.1,
        "learning.batch_size": 4,
        "learning.ema_rate": 0.1,
    },
)


def weights(trainer):
    networks = {"model": trainer.model, "acting": trainer.learner.acting}
    return {(who, name): t.clone() for who, network in networks.items() for name, t in network.state_dict().items()}


def trained(folder, **changes):
    trainer = Trainer(dataclasses.replace(TINY, **changes), folder)
    trainer.run()
    return trainer


def test_training_2n_equals_training_n_and_resuming_to_the_last_bit(tmp_path):
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "cut", updates=6)
    resumed = trained(tmp_path / "cut")
    assert resumed.learner.updates == 12
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert whole.collector.steps == resumed.collector.steps
    timing = (
        "seconds",
        "cpu_seconds",
        "updates_per_second",
        "steps_per_second",
        "tokens_per_second",
        "flop_utilization",
    )
    lines = [
        [{k: v for k, v in line.items() if k not in timing} for line in trainer.log.read()]
        for trainer in (whole, resumed)
    ]
    assert lines[0] == lines[1]
    assert [line["updates"] for line in lines[0]] == [3, 6, 9, 12]


def test_prefetching_changes_nothing(tmp_path, monkeypatch):
    """What a GPU would do, here without one."""
    plain = trained(tmp_path / "plain")
    monkeypatch.setattr(train_module, "batches", lambda make, numbers, device: prefetched(make, numbers))
    ahead = trained(tmp_path / "ahead")
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(ahead)[name]), name


def test_a_stopped_run_saves_and_goes_on(tmp_path):
    trainer = Trainer(dataclasses.replace(TINY, round_updates=100, updates=1000), tmp_path)
    original = trainer.learner.update

    def stop_at_seven(batch):
        if trainer.learner.updates == 6:
            trainer.stop.set()
        return original(batch)

    trainer.learner.update = stop_at_seven
    assert trainer.run() is False
    again = Trainer(dataclasses.replace(TINY, round_updates=100, updates=1000), tmp_path)
    assert again.learner.updates == 7
    assert len(again.replay) == len(trainer.replay)


def test_old_checkpoints_are_pruned(tmp_path):
    trained(tmp_path, keep_checkpoints=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["update-000000009", "update-000000012"]


@pytest.mark.parametrize("name", ["state.pt", "replay.npz"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_newest_checkpoint_falls_back_with_a_warning(tmp_path, name, damage):
    trained(tmp_path)
    path = tmp_path / "checkpoints" / "update-000000012" / name
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.warns(UserWarning, match="Falling back to the checkpoint before"):
        again = Trainer(TINY, tmp_path)
    assert again.learner.updates == 9


def test_nothing_but_damage_is_refused(tmp_path):
    trained(tmp_path, keep_checkpoints=1)
    for path in (tmp_path / "checkpoints").glob("*/state.pt"):
        path.write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UsageError, match=r"Every checkpoint in .* is damaged"):
            Trainer(TINY, tmp_path)


def test_a_nan_keeps_the_last_good_checkpoint(tmp_path):
    trainer = Trainer(TINY, tmp_path)
    original = trainer.learner.losses.losses

    def poisoned(*arguments):
        losses, numbers = original(*arguments)
        if trainer.learner.updates >= 7:
            losses["actor"] = losses["actor"] * float("nan")
        return losses, numbers

    trainer.learner.losses.losses = poisoned
    with pytest.raises(NonFiniteLossError, match="actor was nan in one of the last"):
        trainer.run()
    assert Trainer(TINY, tmp_path).learner.updates == 6


def test_an_environment_that_raises_ends_the_run_with_its_error(tmp_path):
    trainer = Trainer(dataclasses.replace(TINY, sync=False), tmp_path)
    step = trainer.collector.envs.step
    calls = []

    def failing(actions):
        calls.append(1)
        if len(calls) > 60:
            raise OSError("the simulator is gone")
        return step(actions)

    trainer.collector.envs.step = failing
    with pytest.raises(OSError, match="the simulator is gone"):
        trainer.run()


def test_collecting_beside_learning_reaches_the_end(tmp_path):
    trainer = trained(tmp_path, sync=False)
    assert trainer.learner.updates == 12
    assert trainer.collector.steps >= 100 + 12 * 10


def test_evaluation_during_training_writes_records(tmp_path):
    trained(tmp_path, evaluate_rounds=2, evaluate_rollouts=1)
    runs = sorted((tmp_path / "evaluations").iterdir())
    assert [path.name for path in runs] == ["update-000000006", "update-000000012"]
    run = read_run(runs[-1])
    assert run.manifest["step"] > 0
    assert set(run.episodes["task"]) == {"MineSweeperEasy", "PositionOnlyCartPoleEasy"}
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert set(lines[-1]["evaluation"]) == {"MineSweeperEasy", "PositionOnlyCartPoleEasy"}


def test_the_best_of_all_evaluations_is_kept(tmp_path, monkeypatch):
    scores, kept = iter([0.3, 0.5, 0.4, 0.5]), {}
    monkeypatch.setattr(validation, "selection_score", lambda suite, returns: next(scores))

    class Watched(Trainer):
        def _validate(self, policy, player):
            kept[self.learner.updates] = weights(self)
            return super()._validate(policy, player)

    trainer = Watched(dataclasses.replace(TINY, evaluate_rounds=1, evaluate_rollouts=1), tmp_path)
    trainer.run()
    assert list(kept) == [3, 6, 9, 12]
    best = load_run(tmp_path / "best")
    assert best.agent == f"{tmp_path.name}-best"
    assert best.step < trainer.collector.steps
    for (who, name), value in kept[6].items():
        assert who == "model" or torch.equal(value, best._model.state_dict()[name])
    assert [path.name for path in (tmp_path / "best" / "checkpoints").iterdir()] == ["update-000000006"]


def test_models_are_chosen_on_validation_cases_of_the_train_split(tmp_path):
    trained(tmp_path, evaluate_rounds=2, evaluate_rollouts=2)
    run = read_run(tmp_path / "evaluations" / "update-000000012")
    assert (run.manifest["split"], run.manifest["cases"]) == ("train", "validation")
    train = load_suite("popgym").splits["train"]
    assert all(v in train.validation and v not in train.evaluation for v in run.episodes["variant"])


@pytest.mark.parametrize(("objective", "counts"), [("k-shot", [2]), ("k-episode", [1, 2])])
def test_a_model_is_chosen_by_what_counts_in_a_rollout(tmp_path, objective, counts, monkeypatch):
    chosen = []
    monkeypatch.setattr(validation, "selection_score", lambda suite, returns: chosen.append(returns) or 0.0)
    env = {**TINY.env, "objective": objective}
    trained(tmp_path, evaluate_rounds=4, evaluate_rollouts=3, env=env)
    episodes = read_run(tmp_path / "evaluations" / "update-000000012").episodes
    expected = episodes[episodes["attempt"].isin(counts)].groupby("task")["return"].mean()
    assert chosen[-1] == pytest.approx(expected.to_dict())


def test_a_training_task_that_is_no_test_task_can_be_evaluated(tmp_path):
    """ML45's reach is in the train split alone."""
    env = {"tasks": ["reach-v3"], "max_steps": 40}
    trained(tmp_path, env_id="ML45-v0", env=env, evaluate_rounds=4, evaluate_rollouts=1)
    (run,) = (tmp_path / "evaluations").iterdir()
    assert read_run(run).manifest["tasks"] == ["reach-v3"]


def test_selection_is_on_the_suites_scale():
    scale = next(iter(load_references("popgym").scales.values()))
    ends = {task: anchor.value for task, anchor in scale.high.items()}
    assert selection_score(load_suite("popgym"), ends) == pytest.approx(1)
    assert selection_score(toy.SUITE, {"near": 2.0, "far": 4.0}) == 3.0


@pytest.mark.parametrize("ema_rate", [0.1, 1.0])
def test_a_run_loads_as_a_policy(tmp_path, ema_rate):
    trainer = Trainer(updated(TINY, {"learning.ema_rate": ema_rate}), tmp_path)
    trainer.run()
    policy = load_run(tmp_path)
    assert (policy.agent, policy.train_seed, policy.step) == (tmp_path.name, 0, trainer.collector.steps)
    loaded = policy._model.state_dict()
    for name, value in trainer.learner.acting.state_dict().items():
        assert torch.equal(value, loaded[name])
    newest = trainer.model.state_dict()["actor.out.weight"]
    assert torch.equal(newest, loaded["actor.out.weight"]) == (ema_rate == 1)
    with pytest.raises(UsageError, match=r"no config\.json"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 1}, "seed is 0, not 1"), ({"env": {"tasks": ["MineSweeperEasy"]}}, "env is")],
)
def test_a_folder_with_other_settings_is_refused(tmp_path, change, message):
    trained(tmp_path)
    with pytest.raises(UsageError, match=message):
        Trainer(dataclasses.replace(TINY, **change), tmp_path)


def test_a_run_that_never_began_keeps_no_other_out(tmp_path):
    """Refused for a replay larger than the disk, it can be tried again with a smaller one."""
    with pytest.raises(UsageError, match=r"lower collect\.replay"):
        Trainer(updated(TINY, {"collect.replay": 10**12}), tmp_path)
    assert Trainer(TINY, tmp_path).run()
    assert read_config(tmp_path / "config.json") == TINY


def test_a_checkpoint_of_other_spaces_is_refused(tmp_path):
    trained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UsageError, match="other spaces"):
        Trainer(dataclasses.replace(TINY, env={**TINY.env, "expose_task_label": True}), tmp_path)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    trained(tmp_path)
    trainer = Trainer(dataclasses.replace(TINY, updates=24), tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.run()
    monkeypatch.undo()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["update-000000009", "update-000000012"]
    assert Trainer(dataclasses.replace(TINY, updates=24), tmp_path).learner.updates == 12


_KILLED = """
import json, sys, torch
torch.set_num_threads(1)
from pathlib import Path
from mtbench_agents.transformer.config import from_dict
from mtbench_agents.transformer.train import Trainer
Trainer(from_dict(json.loads(sys.argv[1])), Path(sys.argv[2])).run(lambda numbers: print("round", flush=True))
"""


@pytest.mark.slow
def test_kill_9_at_random_moments_never_leaves_a_run_that_cannot_resume(tmp_path):
    """Three kills here; ``python -m tests.agents.transformer.kill_many`` makes twenty."""
    kill_at_random(tmp_path, kills=3, seed=0)


def kill_at_random(folder, kills, seed):
    rng = random.Random(seed)
    config = dataclasses.replace(TINY, updates=100_000, round_updates=2)
    command = [sys.executable, "-c", _KILLED, json.dumps(to_dict(config)), str(folder)]
    reached = 0
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
        process.stdout.readline()  # it has begun anew and got somewhere
        time.sleep(rng.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a whole checkpoint is never a damaged one
            trainer = Trainer(config, folder)
        now = trainer.learner.updates
        trainer.close()
        assert now >= max(reached, 2)
        reached = now


# ---- settings ----


@pytest.mark.parametrize("name", ["paper", "small", "debug"])
def test_presets_survive_json(name):
    assert from_dict(json.loads(json.dumps(to_dict(preset(name))))) == preset(name)


def test_overrides_reach_every_depth():
    options = ["model.width=32", "learning.actor=dependent", "env.k=1", 'env.tasks=["A"]', "learning.discounts=[0.5]"]
    config = updated(preset("small"), parsed_options(options))
    assert config.model.width == 32
    assert config.learning.actor == "dependent"
    assert config.env == {"k": 1, "tasks": ["A"]}
    assert config.learning.discounts == (0.5,)
    assert updated(config, {"collect.steps_per_update": 3}).collect.steps_per_update == 3.0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.widht=3", r"Did you mean 'model\.width'"),
        ("seeed=3", "Did you mean 'seed'"),
        ("seed=abc", "`seed` takes int, got 'abc'"),
        ("sync=1", "`sync` takes bool"),
        ("model.width=true", r"`model\.width` takes int"),
        ("learning.actor=greedy", r"There is no learning\.actor 'greedy'"),
        ("learning.batch_size=0", "at least 1"),
        ("learning.discounts=[1.0]", r"\[0, 1\)"),
        ("novalue", "KEY=VALUE"),
    ],
)
def test_wrong_settings_are_refused(option, message):
    with pytest.raises(UsageError, match=message):
        updated(TrainConfig(), parsed_options([option]))


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'paper'"):
        preset("papr")


def test_collecting_beside_the_learner_takes_newer_weights_within_a_round(tmp_path):
    config = dataclasses.replace(TINY, sync=False, updates=12, round_updates=12, evaluate_rounds=0)
    config = dataclasses.replace(config, collect=dataclasses.replace(config.collect, refresh_updates=1))
    trainer = Trainer(config, tmp_path)
    seen, act = set(), type(trainer.collector.acting).forward

    def watched(inputs, *rest):
        if threading.current_thread().name == "collector":
            seen.add(trainer.collector.acting.actor.out.weight.sum().item())
            time.sleep(0.02)
        return act(trainer.collector.acting, inputs, *rest)

    trainer.collector.acting.forward = watched
    assert trainer.run()
    assert len(seen) >= 3


def test_slices_are_drawn_as_the_settings_say(tmp_path, monkeypatch):
    asked, sample = [], train_module.Replay.sample

    def spy(replay, size, length, rng, recency, by_task, best, shortest, timesteps):
        asked.append((recency, by_task, best, shortest, timesteps, len(replay) <= 4))
        return sample(replay, size, length, rng, recency, by_task, best, shortest, timesteps)

    monkeypatch.setattr(train_module.Replay, "sample", spy)
    changes = {"learning.recency": 2.0, "learning.balance_tasks": True, "learning.shortest_slice": 8}
    changes |= {"collect.replay_rollouts": 4, "learning.batch_timesteps": 40, "learning.best_return": 0.5}
    Trainer(updated(TINY, changes), tmp_path / "run").run()
    assert set(asked) == {(2.0, True, 0.5, 8, 40, True)}
