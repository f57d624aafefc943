"""The adaptation audit: other conditions on the same cases, and what an agent loses under them."""

import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest

import mtbench
from mtbench.audit import audit_conditions, other_variants
from mtbench.cases import evaluation_cases
from mtbench.errors import RecordError
from mtbench.evaluation import evaluate
from mtbench.playing import make_rows, play
from mtbench.records import read_run
from mtbench.registration import find
from tests import toy
from tests.test_playing import SPLITS, TASKS, Reader


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toy.register(monkeypatch)


def played(policy, out=None, **changes):
    arguments = {"rollouts_per_task": 10, "num_envs": 3, "audit": True, **changes}
    return evaluate("Toy-v0", policy, out, **arguments)


class Walker:
    """Stands still in a first attempt and walks in a second one: what memory is worth to it is the whole way."""

    def start(self, num_envs, seed, observation_space, action_space):
        self.attempts = np.zeros(num_envs, int)

    def act(self, observations, reset_mask):
        starts = observations[:, 1] == 1
        self.attempts = np.where(reset_mask, 1, self.attempts + starts)
        return (self.attempts >= 2).astype(np.float32)[:, None]


def test_attempts_play_other_variants_and_all_play_the_same_ones():
    variants = np.repeat(np.random.default_rng(0).permutation(40)[:, None], 4, axis=1)
    others = other_variants(variants)
    assert others.shape == (40, 4)
    assert (others[:, 0] == variants[:, 0]).all()
    assert all(len(set(row)) == 4 for row in others.tolist())
    assert all(sorted(column) == sorted(variants[:, 0]) for column in others.T.tolist())


def test_repeated_variants_are_kept_apart():
    others = other_variants(np.repeat(np.array([1, 1, 2, 2, 3, 3])[:, None], 2, axis=1))
    assert (others[:, 0] != others[:, 1]).all()


@pytest.mark.parametrize("first", [[5], [5, 5, 5], [1, 2, 1]])
def test_too_few_variants_are_an_error(first):
    with pytest.raises(ValueError, match="too few for the audit"):
        other_variants(np.repeat(np.array(first)[:, None], 3, axis=1))


def test_conditions_are_those_that_the_suite_has():
    assert audit_conditions(find("MTBabyAI-v0").suite, 2) == ["no-memory", "other-variants"]
    assert audit_conditions(find("MTPOPGym-v0").suite, 2) == ["no-memory"], "its attempts play new variants anyway"
    with pytest.raises(ValueError, match="here is one attempt"):
        audit_conditions(find("MTPOPGym-v0").suite, 1)


class Listener(Reader):
    """Also keeps what it was told."""

    def start(self, *arguments):
        super().start(*arguments)
        self.told = 0

    def act(self, observations, reset_mask):
        self.told += int(reset_mask.sum())
        return super().act(observations, reset_mask)


@pytest.mark.parametrize("env_id", TASKS)
def test_single_and_batched_environments_play_the_conditions_alike(env_id):
    """A rollout is the same in both, and the policy is told of every attempt under no-memory, else of every rollout."""
    suite, tasks, k = find(env_id).suite, SPLITS.get(env_id, TASKS[env_id])[:1], 3
    arguments = {"split": "test", "tasks": tasks, "k": k, "max_steps": 300}
    conditions = ["normal", *audit_conditions(suite, k)]
    found = []
    for privileged in (True, False):
        rows = make_rows(env_id, arguments, 2, privileged)
        for condition in conditions:
            cases = evaluation_cases(suite, "test", tasks, 5, k, condition=condition)
            policy = Listener()
            ended = [one for step in play(rows, policy, cases, 0, condition == "no-memory") for one in step]
            began = sum(int((one.statistics["lengths"] > 0).sum()) for one in ended)
            assert policy.told >= (began if condition == "no-memory" else len(cases))
            assert condition == "no-memory" or policy.told == len(cases)
            found.append({one.case: one.statistics["returns"].tolist() for one in ended})
        rows.close()
    half = len(conditions)
    assert found[:half] == found[half:]


def test_memory_is_worth_what_a_policy_gains_by_it():
    run = played(Walker())
    assert set(run.audits) == {"no-memory", "other-variants"}
    scores = run.score()
    normal, forgetful = (r.episodes.groupby("attempt")["return"].mean() for r in (run, run.audits["no-memory"]))
    assert normal[1] == forgetful[1] == forgetful[2] == 0
    assert normal[2] > 1
    (own,) = scores.agents
    memory = own.audit["memory"]
    assert memory.returns["far"].value == pytest.approx(normal[2] / 2)  # k-episode: the mean of both attempts
    assert memory.returns["far"].low > 0
    assert own.audit["this variant"].returns["far"].value == pytest.approx(0), "each goal is played as often"


def test_differences_are_paired_by_case():
    """The interval is that of the differences of single cases."""
    run = played(Walker(), rollouts_per_task=40)
    by_case = {
        name: one.episodes.pivot(index="rollout", columns="attempt", values="return").mean(axis=1)
        for name, one in {"normal": run, **run.audits}.items()
    }
    estimate = run.score().agents[0].audit["this variant"].returns["far"]
    assert estimate.value == pytest.approx((by_case["normal"] - by_case["other-variants"]).mean())
    spread = (by_case["normal"] - by_case["other-variants"]).std() / np.sqrt(40)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * spread, rel=0.15)


def test_several_runs_are_the_units():
    runs = [played(Walker(), train_seed=seed, seed=seed) for seed in range(3)]
    own = mtbench.score(runs).agents[0]
    memory = own.audit["memory"].returns["far"]
    assert memory.low == pytest.approx(memory.value), "all runs lost the same"
    unaudited = [dataclasses.replace(runs[0], audits={}), *runs[1:]]
    assert not mtbench.score(unaudited).agents[0].audit, "of all runs or of none"


def test_a_scale_divides_by_its_unit(tmp_path):
    run = evaluate(
        "MTBabyAI-v0", "random", rollouts_per_task=12, audit=True, env_kwargs={"tasks": ["BabyAI-OpenRedDoor-v0"]},
        split="train",
    )  # fmt: skip
    scores = run.score()
    scale = scores.references.scales["oracle"]
    task = "BabyAI-OpenRedDoor-v0"
    unit = scale.high[task].value - scale.low[task].value
    lost = scores.agents[0].audit["this variant"]
    assert lost.means["oracle"].value == pytest.approx(lost.returns[task].value / unit)
    assert lost.means["raw"].value == pytest.approx(lost.returns[task].value)


# ---- records ----


def test_audits_lie_in_the_runs_folder_and_are_read_with_it(tmp_path):
    run = played("tests.test_audit:Walker", tmp_path / "run")
    again = read_run(tmp_path / "run")
    assert set(again.audits) == {"no-memory", "other-variants"}
    for condition, audit in again.audits.items():
        assert audit.manifest["condition"] == condition
        assert audit.episodes.equals(run.audits[condition].episodes)
    assert "condition" not in again.manifest
    tables = mtbench.score(tmp_path / "run").table()
    assert "Walker: memory" in tables
    assert "paired by case" in tables
    assert set(read_run(run.save(tmp_path / "copy").path).audits) == {"no-memory", "other-variants"}


def test_an_evaluation_is_audited_later_without_being_played_again(tmp_path):
    played("tests.test_audit:Walker", tmp_path, audit=False)
    before = (tmp_path / "manifest.json").read_bytes()
    told = []
    run = played("tests.test_audit:Walker", tmp_path, on_rollout=lambda done, total: told.append((done, total)))
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert set(run.audits) == {"no-memory", "other-variants"}
    assert told[-1] == (30, 30)


def test_an_interrupted_audit_goes_on(tmp_path):
    class Enough(Exception):
        pass

    def stop(done, total):
        if done == 17:
            raise Enough

    with pytest.raises(Enough):
        played("tests.test_audit:Walker", tmp_path / "cut", on_rollout=stop)
    assert not read_run(tmp_path / "cut").audits, "the normal condition is whole"
    cut, whole = (played("tests.test_audit:Walker", tmp_path / name) for name in ("cut", "whole"))
    for condition, audit in whole.audits.items():
        assert audit.episodes.equals(cut.audits[condition].episodes)


def test_the_audit_of_another_evaluation_is_refused(tmp_path):
    for agent in ("one", "two"):
        played("tests.test_audit:Walker", tmp_path / agent, agent=agent)
    (tmp_path / "one/no-memory").rename(tmp_path / "kept")
    (tmp_path / "two/no-memory").rename(tmp_path / "one/no-memory")
    with pytest.raises(RecordError, match=r"is no audit of .*: agent is 'two', not 'one'"):
        read_run(tmp_path / "one")


def test_one_condition_under_the_name_of_the_other_is_refused(tmp_path):
    played("tests.test_audit:Walker", tmp_path)
    (tmp_path / "other-variants").rename(tmp_path / "kept")
    (tmp_path / "no-memory").rename(tmp_path / "other-variants")
    with pytest.raises(RecordError, match="condition is 'no-memory', not 'other-variants'"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("none", "condition should be normal or no-memory or other-variants"),
        (["no-memory"], "condition should be"),
        ("normal", "is not the one of this evaluation's fixed cases"),
    ],
)
def test_a_false_condition_is_found(tmp_path, condition, message):
    """The variants of the rows are those of the condition."""
    played("tests.test_audit:Walker", tmp_path)
    path = tmp_path / "other-variants/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "condition": condition}))
    with pytest.raises(RecordError, match=message):
        read_run(tmp_path / "other-variants")


def test_a_condition_that_the_suite_has_not_is_refused(tmp_path):
    run = evaluate("MTPOPGym-v0", "random", tmp_path, rollouts_per_task=1, env_kwargs={"tasks": ["RepeatFirstEasy"]})
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**run.manifest, "condition": "other-variants"}))
    with pytest.raises(RecordError, match="not one of the audit"):
        read_run(tmp_path)


def test_conditions_are_not_scored_side_by_side(tmp_path):
    run = played(Walker(), agent="normal")
    with pytest.raises(RecordError, match="cannot be compared: condition"):
        mtbench.score([run, run.audits["no-memory"]])
    alone = mtbench.score(run.audits["no-memory"])
    assert "the policy's memory is emptied" in alone.table()


def test_an_audit_with_too_few_cases_is_refused_before_anything_is_played(tmp_path):
    with pytest.raises(ValueError, match="too few for the audit"):
        played(Walker(), tmp_path, rollouts_per_task=1)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="give --env k=2 or more"):
        played(Walker(), tmp_path, env_kwargs={"k": 1})
    assert gym.spec("Toy-v0").kwargs["k"] == 2
