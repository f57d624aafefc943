"""Several ranks learn what one process learns, share what a run has, and come back when one of them is killed."""

import collections
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mtbench_agents.training import checkpoint
from mtbench_agents.training.run_log import RunLog
from mtbench_agents.transformer import distributed
from mtbench_agents.transformer.config import read_config
from mtbench_agents.transformer.distributed import ALONE, Ranks, joined, share_of
from mtbench_agents.transformer.policy import load_run
from mtbench_agents.transformer.train import Trainer

from mtbench.errors import UsageError
from mtbench.evaluation import evaluate

from .ranks import Planned, cases, learnt
from .test_durability import TIMING
from .test_train import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.name != "posix" or not torch.distributed.is_available(), reason="needs signals and torch.distributed"
    ),
]

RUN = [
    "MTPOPGym-v0",
    "--preset=debug",
    '--env=tasks=["MineSweeperEasy", "PositionOnlyCartPoleEasy"]',
    *("updates=8", "round_updates=2", "checkpoint_rounds=1", "evaluate_rounds=4", "evaluate_rollouts=140"),
    *("collect.num_envs=12", "collect.first_steps=300", "collect.replay=6000", "collect.steps_per_update=40"),
    *("learning.batch_size=12", "learning.ema_rate=0.1", "model.dropout=0.1"),
]


def torchrun(count, *arguments, restarts=0):
    """Start ranks on this machine, and wait for them."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", f"--max-restarts={restarts}"]
    return subprocess.run(
        [*command, "-m", "tests.agents.transformer.ranks", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def trained(count, folder, *changes, plan=None, restarts=0, sync=True):
    """A run in ``folder/run`` by some ranks, with what they tell in `folder`."""
    folder.mkdir(exist_ok=True)
    turns = ["--sync"] if sync else []
    command = "train", folder, json.dumps(plan or {}), *RUN, *turns, *changes, "--out", folder / "run"
    return torchrun(count, *command, restarts=restarts)


def told(folder, when):
    """What the ranks had when the run was begun or ended."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{when}-*.json"))]


def ended(folder):
    return told(folder, "ended")


def lines(folder):
    return [{k: v for k, v in line.items() if k not in TIMING} for line in RunLog(folder / "run" / "log.jsonl").read()]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run that two ranks have finished."""
    folder = tmp_path_factory.mktemp("two")
    done = trained(2, folder)
    assert done.returncode == 0, done.stderr
    return folder


# ---- an update ----


@pytest.fixture(scope="module")
def learners(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learners")
    done = torchrun(2, "learn", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_two_ranks_learn_what_one_process_learns_from_the_same_batches(learners):
    """In double precision, to 1e-9: weights, statistics and the numbers of the log. A compiled update is single."""
    first, second = (torch.load(learners / f"rank-{rank}.pt") for rank in range(2))
    for case, (one, few), (other, many) in zip(cases(), first, second, strict=True):
        alone, all_of_them = learnt(ALONE, *case)
        assert [a + b for a, b in zip(few, many, strict=True)] == all_of_them
        assert all(2 * a < b for a, b in zip(few, many, strict=True)), "unequal parts"
        assert {"popart.mean", "popart.square", "encoder.numbers.norm.mean"} < alone.keys()
        tolerance = 1e-9 if case[-1] != "compiled" else 1e-3
        for name, value in alone.items():
            assert torch.equal(one[name], other[name]), f"{case}: ranks differ in {name}"
            torch.testing.assert_close(
                one[name].double(),
                value.double(),
                rtol=tolerance,
                atol=1e-6 if name.startswith("log.") and tolerance < 1e-6 else tolerance,
                msg=lambda text, what=(case, name): f"{what}: {text}",
            )


def test_a_nan_on_one_rank_is_refused_by_all_with_the_same_words(learners):
    said = [json.loads((learners / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert said[0] == said[1]
    (inputs, kept), (loss, also_kept) = said[0]
    assert inputs == "The replay's rewards are not finite on rank 1 at update 0."
    assert "was nan in one of the last 1 updates" in loss
    assert kept
    assert also_kept


# ---- a run ----


def test_a_nan_ends_the_run_of_all_ranks(tmp_path):
    """While they collect beside the learner."""
    done = trained(2, tmp_path, "evaluate_rounds=0", plan={"rank": 1, "nan": 5}, sync=False)
    assert done.returncode != 0
    assert done.stderr.count("NonFiniteLossError: The replay's rewards are not finite on rank 1 at update 5.") == 2
    assert [line["updates"] for line in lines(tmp_path)] == [2, 4]


def test_a_killed_rank_comes_back_and_the_run_is_the_one_it_would_have_been(two, tmp_path):
    done = trained(2, tmp_path, plan={"rank": 1, "kill": 5}, restarts=1)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists()
    assert "has lost another rank" in done.stderr
    assert lines(tmp_path) == lines(two)
    assert [line["updates"] for line in lines(tmp_path)] == [2, 4, 6, 8]
    assert ended(tmp_path) == ended(two)


def test_rank_0_alone_writes_the_runs_files(two):
    run = str(two / "run")
    notes = [(two / f"written-{rank}").read_text().splitlines() for rank in range(2)]
    written = [{path for path in each if path.startswith(run + os.sep)} for each in notes]
    assert {Path(path).relative_to(run).parts[0] for path in written[0]} >= {"log.jsonl", "checkpoints", "evaluations"}
    assert written[1]
    assert {Path(path).relative_to(run).parts[:2] for path in written[1]} <= {("replay", "rank-1-of-2"), ("replay",)}
    assert not any("rank-1-of-2" in path for path in written[0])


def test_ranks_have_other_environments_and_rollouts(two):
    first, second = ended(two)
    assert first["weights"] == second["weights"]
    assert first["rollouts"]
    assert not set(first["rollouts"]) & set(second["rollouts"])
    assert len(first["unfinished"]) == len(second["unfinished"]) == 6
    assert lines(two)[-1]["steps"] == first["steps"] + second["steps"]
    assert ALONE.seed(7) == 7
    assert len({_rank(rank, 8).seed(7) for rank in range(8)}) == 8


def test_evaluations_are_played_by_all_ranks_and_are_those_of_one(two, tmp_path, monkeypatch):
    played = [(two / f"played-{rank}").read_text().split() for rank in range(2)]
    assert played[0]
    assert played[1]
    assert not set(played[0]) & set(played[1])
    config = read_config(two / "run" / "config.json")
    policy = load_run(two / "run")
    (mine,) = (two / "run" / "evaluations").iterdir()
    run = evaluate(
        config.env_id,
        policy,
        tmp_path / "alone",
        split="train",
        cases="validation",
        rollouts_per_task=config.evaluate_rollouts,
        jobs=1,
        env_kwargs=config.env,
    )
    assert len(run.episodes) == 560
    assert (mine / "episodes.parquet").read_bytes() == (tmp_path / "alone" / "episodes.parquet").read_bytes()
    assert load_run(two / "run" / "best").step == policy.step


# ---- other numbers of ranks ----


def content(parts):
    """What several ranks have in all."""
    return {
        "rollouts": collections.Counter(one for part in parts for one in part["rollouts"]),
        "timesteps": sum(part["timesteps"] for part in parts),
        "steps": sum(part["steps"] for part in parts),
        "unfinished": [length for part in parts for length in part["unfinished"]],
        "memory": [reward for part in parts for reward in part["memory"]],
    }


def alone(folder, **changes):
    """The run goes on in this process: what it has at first."""
    Planned.plan, Planned.out = {}, str(folder)
    trainer = Planned(dataclasses.replace(read_config(folder / "run" / "config.json"), **changes), folder / "run")
    trainer.run()
    return told(folder, "begun")


def replay_files(folder):
    return {str(path.relative_to(folder / "run" / "replay")) for path in (folder / "run" / "replay").glob("**/*.bin")}


def test_a_run_of_two_ranks_goes_on_with_one_and_with_three(two, tmp_path):
    before = content(ended(two))
    assert before["timesteps"] > 300
    for count in (1, 3):
        folder = tmp_path / str(count)
        shutil.copytree(two, folder)
        for path in folder.glob("*-*.json"):
            path.unlink()
        if count == 1:
            begun = alone(folder, updates=10)
        else:
            done = trained(count, folder, "updates=10")
            assert done.returncode == 0, done.stderr
            begun = told(folder, "begun")
        assert len(begun) == count
        assert content(begun) == before
        assert max(len(part["rollouts"]) for part in begun) - min(len(part["rollouts"]) for part in begun) <= 1
        assert [line["updates"] for line in lines(folder)] == [2, 4, 6, 8, 10]
        names = {"actions.bin", "observations.bin", "rewards.bin"}
        ranks = [""] if count == 1 else [f"rank-{rank}-of-{count}/" for rank in range(count)]
        assert {path for path in replay_files(folder) if "undo" not in path} == {r + n for r in ranks for n in names}


def test_a_move_that_is_interrupted_begins_again(two, tmp_path, monkeypatch):
    """Its rollouts are in new files already, and no checkpoint says so."""
    shutil.copytree(two / "run", tmp_path / "run")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            alone(tmp_path, updates=10)
    assert {"actions.bin", "rank-0-of-2/actions.bin", "rank-1-of-2/actions.bin"} <= replay_files(tmp_path)
    assert content(alone(tmp_path, updates=10)) == content(ended(two))
    assert not any("rank" in path for path in replay_files(tmp_path))


def test_one_process_goes_on_with_two_ranks_that_stop_together(tmp_path):
    """From a checkpoint whose replay was overwritten since: the undo log has what is missing."""
    Planned.plan, Planned.out = {}, str(tmp_path)
    collect = dataclasses.replace(TINY.collect, num_envs=4, replay_rollouts=6)
    config = dataclasses.replace(TINY, env={"tasks": ["MineSweeperEasy"]}, collect=collect, checkpoint_rounds=4)
    Planned(dataclasses.replace(config, updates=6), tmp_path / "run").run()
    (before,) = ended(tmp_path)
    killed = Planned(config, tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        killed.run(lambda numbers: 1 / (numbers["updates"] < 9))
    assert (tmp_path / "run" / "replay" / "undo.bin").exists()

    plan = json.dumps({"rank": 1, "stop": 8})
    config_file = tmp_path / "run" / "config.json"
    done = torchrun(2, "train", tmp_path, plan, config.env_id, "--config", config_file, "--out", tmp_path / "run")
    assert done.returncode != 0
    assert "Stopped after 9 updates and saved" in " ".join(done.stderr.split())
    assert content(told(tmp_path, "begun")) == content([before])
    newest = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert (newest[1]["updates"], newest[1]["ranks"]) == (9, 2)


# ---- without processes ----


class _Blind(Ranks):
    """A rank on a machine that does not have the run's disk."""

    rank, count = 1, 2

    def first(self, work):
        return None


def test_a_folder_that_a_rank_does_not_see_is_refused(tmp_path):
    config = dataclasses.replace(TINY, collect=dataclasses.replace(TINY.collect, num_envs=4))
    with pytest.raises(UsageError, match=r"Rank 1 does not see .*a disk that all machines share"):
        Trainer(config, tmp_path / "elsewhere", _Blind())


def _rank(rank, count):
    ranks = Ranks()
    ranks.rank, ranks.count = rank, count
    return ranks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_envs": 7}, r"`collect.num_envs` is 7, which 2 ranks cannot share evenly. .*collect.num_envs=8"),
        ({"batch_size": 5}, r"`learning.batch_size` is 5, which 2 ranks"),
    ],
)
def test_what_cannot_be_shared_evenly_is_refused(changes, message):
    collect = dataclasses.replace(TINY.collect, num_envs=changes.get("num_envs", 8))
    learning = dataclasses.replace(TINY.learning, batch_size=changes.get("batch_size", 4))
    with pytest.raises(UsageError, match=message):
        share_of(dataclasses.replace(TINY, collect=collect, learning=learning), _rank(0, 2))


def test_shares_add_up():
    learning = dataclasses.replace(TINY.learning, batch_timesteps=50)
    config = dataclasses.replace(TINY, collect=dataclasses.replace(TINY.collect, num_envs=6), learning=learning)
    assert share_of(config, ALONE) is config
    share = share_of(config, _rank(1, 2))
    assert (share.collect.num_envs, share.learning.batch_size, share.collect.replay) == (3, 2, 1000)
    assert share.learning.batch_timesteps == 25
    assert share.collect.steps_per_update * 2 == config.collect.steps_per_update
    assert share.seed != config.seed
    assert (share.updates, share.model) == (config.updates, config.model)


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with joined() as ranks:
        assert ranks is ALONE


def test_each_rank_sees_one_gpu_of_its_machine(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    distributed.take_gpu(1, 2, 2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    distributed.take_gpu(1, 2, 2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    with pytest.raises(UsageError, match="3 ranks and 2 GPUs"):
        distributed.take_gpu(0, 3, 2)
