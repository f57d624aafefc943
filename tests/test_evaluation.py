import json
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
from mtbench_agents.random import RandomPolicy

from mtbench import records
from mtbench.cases import evaluation_cases
from mtbench.evaluation import evaluate
from mtbench.records import RecordError, read_run
from mtbench.suites.popgym import SUITE
from tests import toy

ID = "MTPOPGym-v0"
SHORT = ["RepeatFirstEasy", "PositionOnlyCartPoleEasy", "MineSweeperEasy"]


def quick(out, policy="random", **kwargs):
    # One job: policies here count what they meet, and a slow machine would start workers.
    arguments = {"rollouts_per_task": 5, "num_envs": 2, "env_kwargs": {"tasks": SHORT}, "jobs": 1, **kwargs}
    return evaluate(ID, policy, out, **arguments)


# ---- the records ----


def test_records_are_complete_and_say_where_they_come_from(tmp_path):
    run = quick(tmp_path / "run")
    frame = run.episodes
    assert list(frame.columns) == list(records.COLUMNS)
    assert len(frame) == len(SHORT) * 5 * 2
    assert frame["task"].unique().tolist() == SHORT
    assert frame["attempt"].tolist() == [1, 2] * 15
    assert frame["success"].isna().all()
    again = read_run(tmp_path / "run")
    pd.testing.assert_frame_equal(again.episodes, frame)
    manifest = again.manifest
    assert manifest["versions"]["popgym"] == metadata.version("popgym")
    assert manifest["hardware"]["cores"] >= 1
    assert manifest["privileged"] is False
    assert not (tmp_path / "run" / ".partial").exists()


def test_a_case_is_what_the_environment_plays(tmp_path):
    """The first row of the records, replayed by hand."""
    import gymnasium as gym

    from mtbench.suites.popgym.oracle import action

    run = quick(tmp_path / "run", policy="oracle")
    row = run.episodes.iloc[1]
    case = next(c for c in evaluation_cases(SUITE, "test", SHORT, 5, 2) if (c.task, c.rollout) == (SHORT[0], 0))
    env = gym.make(ID, split="test").unwrapped
    env.reset(seed=case.seed, options={"task": case.task, "variant": list(case.variants)})
    over = False
    while not over:
        *_, over, _, info = env.step(action(env))
    assert row["variant"] == case.variants[1]
    assert row["return"] == info["rollout"]["returns"][1]


def test_the_same_evaluation_gives_the_same_rows(tmp_path):
    one, two, other = quick(tmp_path / "1"), quick(tmp_path / "2"), quick(tmp_path / "3", seed=1)
    pd.testing.assert_frame_equal(one.episodes, two.episodes)
    assert not one.episodes["return"].equals(other.episodes["return"])
    assert one.episodes["variant"].equals(other.episodes["variant"])


def test_a_deterministic_policy_does_not_feel_the_number_of_environments(tmp_path):
    runs = [quick(tmp_path / str(n), policy="oracle", num_envs=n) for n in (1, 7, 64)]
    for run in runs[1:]:
        pd.testing.assert_frame_equal(run.episodes, runs[0].episodes)


class Interrupting:
    """Counts rollouts and stops the evaluation as Ctrl-C would."""

    def __init__(self, after):
        self.after = after

    def __call__(self, done, total):
        if done == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 8, 9, 14])
def test_an_interrupted_evaluation_resumes_to_the_same_records(tmp_path, after):
    whole = quick(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "cut", on_rollout=Interrupting(after))
    # A shard holds 8 rollouts and is on disk once its last one has been reported: it is not played again.
    finished = (after - 1) // 8
    assert (tmp_path / "cut").exists() == bool(finished)
    with pytest.raises(RecordError, match="has not finished" if finished else "not a folder"):
        read_run(tmp_path / "cut")
    played = []
    resumed = quick(tmp_path / "cut", on_rollout=lambda done, total: played.append(done))
    pd.testing.assert_frame_equal(resumed.episodes, whole.episodes)
    assert len(played) == 15 - 8 * finished + finished


def test_a_damaged_shard_is_played_again(tmp_path):
    whole = quick(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "cut", on_rollout=Interrupting(12))
    shard = tmp_path / "cut" / ".partial" / "shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.warns(UserWarning, match="Playing shard 0 again"):
        resumed = quick(tmp_path / "cut")
    pd.testing.assert_frame_equal(resumed.episodes, whole.episodes)


def test_a_finished_evaluation_is_not_repeated(tmp_path):
    quick(tmp_path / "run")
    before = (tmp_path / "run" / records.EPISODES).stat().st_mtime_ns
    again = quick(tmp_path / "run", on_rollout=Interrupting(1))
    assert (tmp_path / "run" / records.EPISODES).stat().st_mtime_ns == before
    assert len(again.episodes) == 30


def test_a_shard_of_other_cases_is_played_again(tmp_path):
    whole = quick(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "cut", on_rollout=Interrupting(12))
    shards = tmp_path / "cut" / ".partial"
    frame = records.read_frame(shards / "shard-00000.parquet")
    records.write_frame(shards / "shard-00000.parquet", frame.iloc[:-2])
    pd.testing.assert_frame_equal(quick(tmp_path / "cut").episodes, whole.episodes)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": 3}'])
def test_a_damaged_plan_is_named(tmp_path, content):
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "run", on_rollout=Interrupting(9))
    (tmp_path / "run" / ".partial" / "plan.json").write_text(content)
    with pytest.raises(RecordError, match=r"plan\.json is damaged"):
        quick(tmp_path / "run")


def test_parts_made_with_other_versions_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "run", on_rollout=Interrupting(9))
    plan = tmp_path / "run" / ".partial" / "plan.json"
    plan.write_text(plan.read_text().replace(metadata.version("popgym"), "0.0.1"))
    with pytest.raises(ValueError, match="versions"):
        quick(tmp_path / "run")


def test_an_edited_policy_is_not_taken_for_the_old_one(tmp_path):
    source = tmp_path / "mine.py"
    source.write_text("def act(obs):\n    return 0\n")
    quick(tmp_path / "run", policy=f"{source}:act")
    source.write_text("def act(obs):\n    return 1\n")
    with pytest.raises(ValueError, match="policy_sha256"):
        quick(tmp_path / "run", policy=f"{source}:act")


def test_a_function_is_a_policy(tmp_path):
    run = quick(tmp_path / "run", policy=lambda obs: 0, agent="zero")
    assert set(run.episodes["agent"]) == {"zero"}


def test_every_shard_has_draws_of_its_own(tmp_path):
    class Seeds(RandomPolicy):
        seen = []  # noqa: RUF012

        def start(self, num_envs, seed, observation_space, action_space):
            self.seen.append(seed)
            super().start(num_envs, seed, observation_space, action_space)

    quick(tmp_path / "run", policy=Seeds())
    assert len(Seeds.seen) == len(set(Seeds.seen)) == 2


def test_training_facts_are_recorded(tmp_path):
    run = quick(tmp_path / "run", train_seed=4, step=1234)
    assert set(run.episodes["train_seed"]) == {4}
    assert set(run.episodes["step"]) == {1234}


def test_successes_are_recorded(tmp_path, monkeypatch):
    toy.register(monkeypatch)
    always = evaluate("Toy-v0", lambda obs: np.ones(1, np.float32), tmp_path / "a", rollouts_per_task=4)
    never = evaluate("Toy-v0", lambda obs: np.zeros(1, np.float32), tmp_path / "b", rollouts_per_task=4)
    assert always.episodes["success"].tolist() == [True] * 8
    assert never.episodes["success"].tolist() == [False] * 8


def test_environments_are_closed(tmp_path, monkeypatch):
    from mtbench.rollout import MetaRollout
    from mtbench.vector.rollout import VectorMetaRollout

    closed = []
    monkeypatch.setattr(MetaRollout, "close", lambda self: closed.append(self))
    monkeypatch.setattr(VectorMetaRollout, "close_extras", lambda self, **_: closed.append(self))
    quick(tmp_path / "batched", num_envs=3)
    assert [type(env) for env in closed] == [MetaRollout, VectorMetaRollout]
    closed.clear()
    quick(tmp_path / "single", policy="oracle", num_envs=3)
    assert len({id(env) for env in closed}) == 4


def test_a_train_seed_of_zero_counts(tmp_path):
    class Trained(RandomPolicy):
        agent, train_seed, step = "trained", 7, 9

    assert quick(tmp_path / "own", policy=Trained()).manifest["train_seed"] == 7
    run = quick(tmp_path / "given", policy=Trained(), train_seed=0, step=0)
    assert run.manifest["train_seed"] == run.manifest["step"] == 0
    assert set(run.episodes["train_seed"]) == {0}


def test_validation_plays_other_cases_and_says_so(tmp_path):
    run = quick(tmp_path / "validation", split="train", cases="validation")
    assert run.manifest["cases"] == "validation"
    assert all(variant in SUITE.splits["train"].validation for variant in run.episodes["variant"])
    with pytest.raises(ValueError, match="cases = 'validation', not 'evaluation'"):
        quick(tmp_path / "validation", split="train")


def test_the_test_split_chooses_no_model(tmp_path):
    with pytest.raises(ValueError, match="choose models on the train split"):
        quick(tmp_path / "run", cases="validation")
    assert not (tmp_path / "run").exists()


def test_rewards_reach_policies_that_want_them(tmp_path):
    class Counting(RandomPolicy):
        total = 0.0

        def observe_rewards(self, rewards):
            self.total += rewards.sum()

    policy = Counting()
    run = quick(tmp_path / "run", policy=policy)
    last = run.episodes[run.episodes["attempt"] == 2]
    assert policy.total == pytest.approx(last["return"].sum())


@pytest.mark.parametrize("key", ["split", "max_episode_steps", "render_mode", "suite"])
def test_what_is_not_the_callers_to_choose_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match=f"no environment argument '{key}'"):
        quick(tmp_path / "run", env_kwargs={key: 1})


def test_a_foreign_file_is_not_overwritten(tmp_path):
    (tmp_path / "episodes.parquet").write_text("mine")
    with pytest.raises(ValueError, match="in the way"):
        quick(tmp_path)
    assert (tmp_path / "episodes.parquet").read_text() == "mine"


@pytest.mark.parametrize("change", [{"rollouts_per_task": 6}, {"seed": 3}, {"agent": "other"}, {"policy": "oracle"}])
@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_with_other_settings_is_refused(tmp_path, change, finished):
    if finished:
        quick(tmp_path / "run")
    else:
        with pytest.raises(KeyboardInterrupt):
            quick(tmp_path / "run", on_rollout=Interrupting(9))
    with pytest.raises(ValueError, match="holds an evaluation with"):
        quick(tmp_path / "run", **change)


def test_settings_survive_the_way_through_json(tmp_path):
    quick(tmp_path / "run", env_kwargs={"tasks": tuple(SHORT)})
    quick(tmp_path / "run", env_kwargs={"tasks": SHORT})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rollouts_per_task": 0}, "at least 1"),
        ({"num_envs": 0}, "at least 1"),
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"policy": "randm"}, "Did you mean 'random'"),
    ],
)
def test_wrong_arguments_leave_no_trace(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        quick(tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_an_unknown_id_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'MTPOPGym-v0'"):
        evaluate("MTPOPgym-v0", "random", tmp_path / "run")


# ---- how policies are driven ----


class Watching(RandomPolicy):
    """A random policy that checks what it is given."""

    def start(self, num_envs, seed, observation_space, action_space):
        super().start(num_envs, seed, observation_space, action_space)
        self.space, self.n, self.calls, self.begun = observation_space, num_envs, 0, 0

    def act(self, observations, reset_mask):
        assert observations.shape == (self.n, 30)
        assert observations.dtype == np.float32
        assert all(self.space.contains(row) for row in observations)
        assert reset_mask.dtype == np.bool_
        assert reset_mask.all() or self.calls
        # A rollout's first observation has no elapsed steps, and no other has none.
        assert (observations[reset_mask, 26] == 0).all()
        assert (observations[~reset_mask, 26] > 0).all()
        self.begun += int(reset_mask.sum())
        self.calls += 1
        actions = super().act(observations, reset_mask)
        observations[:] = -7.0  # a policy may do what it likes with its batch
        reset_mask[:] = True
        return actions


def test_policies_get_batches_and_the_moments_of_reset(tmp_path):
    policy = Watching()
    watched = quick(tmp_path / "watched", policy=policy, num_envs=8)
    assert policy.begun == 15
    plain = quick(tmp_path / "plain", num_envs=8)
    assert watched.episodes["return"].equals(plain.episodes["return"])
    assert watched.manifest["agent"] == "Watching"


def test_a_batch_of_the_wrong_size_is_refused(tmp_path):
    class Short(RandomPolicy):
        def act(self, observations, reset_mask):
            return super().act(observations, reset_mask)[:-1]

    with pytest.raises(ValueError, match="returned 1 actions for 2 observations"):
        quick(tmp_path / "run", policy=Short())


def test_an_exposed_label_is_recorded(tmp_path):
    run = quick(tmp_path / "run", env_kwargs={"tasks": SHORT, "expose_task_label": True})
    assert run.manifest["task_label_exposed"] is True


def test_the_manifest_names_no_path(tmp_path):
    run = quick(tmp_path / "run")
    assert str(tmp_path) not in json.dumps(run.manifest)


def test_a_last_shard_smaller_than_the_batch_is_played(tmp_path):
    """18 cases in shards of 16 and 2: two of four environments have nothing to play in the second."""
    few = quick(tmp_path / "few", policy="oracle", rollouts_per_task=6, num_envs=4)
    one = quick(tmp_path / "one", policy="oracle", rollouts_per_task=6, num_envs=1)
    pd.testing.assert_frame_equal(few.episodes, one.episodes)
