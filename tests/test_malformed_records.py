"""Runs that a stranger may send, each wrong in one way, and the reason that the reader gives.

Every one of them is consistent in itself (the checksum fits the rows), as an attacker would make it.
"""

import hashlib
import json
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtbench import checks, evaluation, registration
from mtbench.cases import EVALUATION_VERSION, evaluation_cases
from mtbench.records import EPISODES, MANIFEST, RecordError, episodes_frame, read_run, write_run
from mtbench.suite import load_suite
from tests import toy

TASKS = ["MineSweeperEasy", "RepeatFirstEasy"]


def write(folder, env_id="MTPOPGym-v0", tasks=TASKS, rollouts=2, split="test", **env_kwargs):
    """A whole run of an agent that stands still and earns nothing, made up without playing."""
    row = registration.find(env_id)
    suite = load_suite(row.kwargs["suite"])
    k = env_kwargs.get("k", row.k)
    labels = {"suite": suite.name, "split": split, "agent": "me"}
    manifest = {
        "env_id": row.id,
        "env_kwargs": {"tasks": list(tasks), "split": split, **env_kwargs},
        **labels,
        "tasks": list(tasks),
        "k": k,
        "objective": row.objective,
        "rollouts_per_task": rollouts,
        "privileged": False,
        "task_label_exposed": False,
        "train_seed": None,
        "step": None,
        "evaluation_version": EVALUATION_VERSION,
    }
    cases = sorted(evaluation_cases(suite, split, tasks, rollouts, k), key=lambda case: (case.task, case.rollout))
    rows = [
        {**labels, "task": case.task, "variant": variant, "rollout": case.rollout, "attempt": i, "return": 0.0}
        | {"length": 3, "success": False if suite.has_success else None}
        for case in cases
        for i, variant in enumerate(case.variants, 1)
    ]
    write_run(folder, episodes_frame(rows), manifest)
    return folder


def manifest(**changes):
    def mutate(folder):
        path = folder / MANIFEST
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return mutate


def env_kwargs(**changes):
    def mutate(folder):
        before = json.loads((folder / MANIFEST).read_text())["env_kwargs"]
        manifest(env_kwargs={**before, **changes})(folder)

    return mutate


def sealed(folder):
    """Let the manifest's checksum fit the rows."""
    manifest(episodes_sha256=hashlib.sha256((folder / EPISODES).read_bytes()).hexdigest())(folder)


def rows(change, **options):
    """Change the rows, a frame."""

    def mutate(folder):
        change(pd.read_parquet(folder / EPISODES)).to_parquet(folder / EPISODES, index=False, **options)
        sealed(folder)

    return mutate


def table(change, **options):
    """Change the rows, an Arrow table."""

    def mutate(folder):
        pq.write_table(change(pq.read_table(folder / EPISODES)), folder / EPISODES, **options)
        sealed(folder)

    return mutate


def cell(column, value, row=0):
    def change(frame):
        frame.loc[row, column] = value
        return frame

    return rows(change)


def variants_of(split, which):
    def change(frame):
        source = getattr(load_suite("popgym").split(split), which)
        return frame.assign(variant=source.sample(np.random.default_rng(0), len(frame)))

    return rows(change)


def linked(name):
    def mutate(folder):
        elsewhere = folder.parent / f"elsewhere-{name}"
        (folder / name).rename(elsewhere)
        (folder / name).symlink_to(elsewhere)

    return mutate


def pipe(name):
    def mutate(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return mutate


def text(old, new):
    def mutate(folder):
        before = (folder / MANIFEST).read_text()
        assert old in before
        (folder / MANIFEST).write_text(before.replace(old, new, 1))

    return mutate


def many_rows(folder):
    """Half a million equal rows in a few thousand bytes, behind a manifest that says eight."""
    small = pq.read_table(folder / EPISODES).slice(0, 1)
    pq.write_table(pa.concat_tables([small] * 500_000).combine_chunks(), folder / EPISODES)
    assert (folder / EPISODES).stat().st_size < 65_536
    sealed(folder)


def long_names(folder):
    """A name of a megabyte, which Parquet and Snappy hold in a few thousand bytes."""
    name = "x" * 1_000_000
    rows(lambda f: f.assign(agent=name))(folder)
    manifest(agent=name)(folder)


def column(name, kind):
    return table(lambda t: t.set_column(t.schema.get_field_index(name), name, t[name].cast(kind)))


def texts(name):
    return table(lambda t: t.set_column(t.schema.get_field_index(name), name, t[name].cast(pa.string())))


MALFORMED = [
    # files
    ("episodes are a link", linked(EPISODES), "symbolic link"),
    ("manifest is a link", linked(MANIFEST), "symbolic link"),
    ("episodes are a pipe", pipe(EPISODES), "not a regular file"),
    ("manifest is a pipe", pipe(MANIFEST), "not a regular file"),
    ("manifest of 2 MiB", manifest(note="x" * 2**21), "too large"),
    ("episodes of 1 MiB", lambda f: (f / EPISODES).write_bytes(bytes(2**20)), "too large"),
    ("other episodes", lambda f: (f / EPISODES).write_bytes(b"PAR1"), "checksum differs"),
    ("no Parquet", lambda f: [(f / EPISODES).write_bytes(b"PAR1"), sealed(f)], "truncated or foreign"),
    # JSON
    ("a key twice", text('"split": "test"', '"split": "train", "split": "test"'), "'split' occurs twice"),
    ("NaN", text('"train_seed": null', '"train_seed": NaN'), "NaN is no JSON number"),
    ("Infinity", text('"step": null', '"step": -Infinity'), "-Infinity is no JSON number"),
    ("nested a little too deep", text('"step": null', '"x": ' + "[" * 40 + "]" * 40), "nested too deeply"),
    ("nested far too deep", lambda f: (f / MANIFEST).write_text("[" * 500_000), "nested too deeply"),
    ("not UTF-8", lambda f: (f / MANIFEST).write_bytes(b'{"agent": "\xff"}'), "not valid JSON"),
    ("a number of 5000 digits", text('"step": null', '"step": ' + "9" * 5000), "not valid JSON"),
    ("a list", lambda f: (f / MANIFEST).write_text("[1]"), "schema version None"),
    ("schema version as a float", manifest(schema_version=1.0), "schema version 1.0"),
    # types and bounds
    ("k of a billion", manifest(k=10**9), "out of bounds"),
    ("rollouts of a billion", manifest(rollouts_per_task=10**9), "out of bounds"),
    ("too many attempts in all", manifest(k=1000, rollouts_per_task=1000), "out of bounds"),
    ("k is true", manifest(k=True), "k should be of type int"),
    ("k is a float", manifest(k=2.0), "k should be of type int"),
    ("privileged is a string", manifest(privileged="no"), "privileged should be of type bool, it is 'no'"),
    ("privileged is a number", manifest(privileged=0), "privileged should be of type bool, it is 0"),
    ("label exposed is null", manifest(task_label_exposed=None), "task_label_exposed should be of type bool"),
    ("train_seed below 0", manifest(train_seed=-1), "train_seed should be null or at least 0"),
    ("step is a float", manifest(step=1.5), "step should be of type int or null"),
    ("step of 30 digits", manifest(step=10**30), "step should be null or at least 0"),
    ("a name of 100,000 characters", manifest(agent="x" * 100_000), "agent should be a name of 1 to 200"),
    ("a name of a megabyte in the rows too", long_names, "too large|agent should be a name"),
    ("a name with an escape", manifest(agent="\x1b[31mred"), r"printable characters, it is '\\x1b"),
    ("a name of two lines", manifest(agent="me\nyou"), "printable characters"),
    ("no name", manifest(agent=""), "agent should be a name"),
    ("a task that is a list", manifest(tasks=[["a"]]), "tasks should be names"),
    # versions and the registry
    ("an older evaluation", manifest(evaluation_version=0), "evaluation_version is 0.*evaluate the agent again"),
    ("a newer evaluation", manifest(evaluation_version=10**6), "evaluation_version is 1000000"),
    ("evaluation version true", manifest(evaluation_version=True), "evaluation_version should be of type int"),
    ("unknown cases", manifest(cases="easy"), "cases should be evaluation"),
    ("cases as a list", manifest(cases=["evaluation"]), "cases should be evaluation"),
    ("an ID that imports", manifest(env_id="payload:MTPOPGym-v0"), "There is no environment 'payload:MTPOPGym-v0'"),
    ("an ID of Gymnasium's own", manifest(env_id="CartPole-v1"), "There is no environment 'CartPole-v1'"),
    ("another ID", manifest(env_id="MTBabyAI-v0"), "There is no task 'MineSweeperEasy'"),
    ("a suite that imports", manifest(suite="payload:SUITE"), "suite is 'payload:SUITE'"),
    ("another suite", manifest(suite="babyai"), "suite is 'babyai'"),
    ("an unknown split", manifest(split="validation"), "There is no split 'validation'"),
    ("another split", manifest(split="train"), "split is 'train', but"),
    ("an unknown task", manifest(tasks=["MineSweeperEasy", "Nothing"]), "There is no task 'Nothing'"),
    ("other tasks", manifest(tasks=["MineSweeperEasy"]), "tasks is"),
    ("another k", manifest(k=1, rollouts_per_task=4), "k is 1, but env_id MTPOPGym-v0 with its env_kwargs plays 2"),
    ("another objective", manifest(objective="k-episode"), "objective is 'k-episode', but"),
    ("a hidden label that was shown", env_kwargs(expose_task_label=True), "task_label_exposed is False, but"),
    ("arguments of another split", env_kwargs(split="train"), "split is 'test', but"),
    ("arguments of another k", env_kwargs(k=3), "k is 2, but"),
    ("k of a billion as an argument", env_kwargs(k=10**9), "argument k should be an integer from 1 to"),
    ("a suite as an argument", env_kwargs(suite="payload:SUITE"), "no environment argument 'suite'"),
    ("an argument of gym.make", env_kwargs(additional_wrappers=[]), "no environment argument 'additional_wrappers'"),
    ("a flag that is a string", env_kwargs(clip_rewards="yes"), "clip_rewards should be true or false"),
    ("scales that are strings", env_kwargs(reward_scales={"MineSweeperEasy": "x"}), "reward_scales should be numbers"),
    ("scales of other tasks", env_kwargs(reward_scales={"payload": 1.0}), "There is no task 'payload'"),
    # the rows' file
    ("half a million rows", many_rows, "500,000 rows, it should have 8"),
    ("one row too few", rows(lambda f: f.iloc[1:]), "has 7 rows, it should have 8"),
    ("a further column", rows(lambda f: f.assign(more=1)), "has the columns"),
    ("columns in another order", rows(lambda f: f[f.columns[::-1]]), "has the columns"),
    ("returns as strings", texts("return"), "column 'return' should be of type double, it is 'string'"),
    (
        "returns as bytes",
        table(lambda t: t.set_column(6, "return", pa.array([b"1"] * 8))),
        "'return' should be of type",
    ),
    ("returns as small floats", column("return", pa.float32()), "column 'return' should be of type double"),
    ("tasks as bytes", column("task", pa.binary()), "column 'task' should be of type string"),
    (
        "tasks as a dictionary",
        table(lambda t: t.set_column(2, "task", t["task"].dictionary_encode())),
        "'task' should be",
    ),
    ("lengths as floats", column("length", pa.float64()), "column 'length' should be of type int64"),
    ("successes as numbers", column("success", pa.int64()), "column 'success' should be of type bool"),
    ("a codec that grows", table(lambda t: t, compression="zstd"), "compressed with ZSTD"),
    ("a long name in the rows", rows(lambda f: f.assign(agent="x" * 400_000)), "unpacks to more than"),
    ("an escape in the rows", rows(lambda f: f.assign(task="\x1b[2J")), "column 'task' holds other things"),
    ("an empty cell", cell("agent", None), "column 'agent' has empty cells"),
    # the rows
    ("another agent", rows(lambda f: f.assign(agent="you")), "column 'agent' holds"),
    ("a seed that is not stated", rows(lambda f: f.assign(train_seed=pd.array([3] * 8, "Int64"))), "'train_seed'"),
    ("a rollout twice", cell("rollout", 1), "2 rollouts of 2 attempts once each"),
    ("a rollout below 0", cell("rollout", -1), "2 rollouts of 2 attempts once each"),
    ("attempts from 0", rows(lambda f: f.assign(attempt=f["attempt"] - 1)), "2 rollouts of 2 attempts once each"),
    ("an attempt of 63 bits", cell("attempt", 2**63 - 1), "2 rollouts of 2 attempts once each"),
    ("variants of training", variants_of("train", "variants"), "not the one of this evaluation's fixed cases"),
    ("other variants of the evaluation", variants_of("test", "evaluation"), "not the one of this evaluation's"),
    ("a variant below 0", cell("variant", -1), "was played on variant -1"),
    ("a return of 1e308", cell("return", 1e308), r"attempt 1 has return 1e\+308"),
    ("a return of infinity", cell("return", np.inf), "has return inf"),
    ("a return of NaN", cell("return", np.nan), "has return nan"),
    ("a return above the game's best", cell("return", 1.01), "returns from -1 to 1"),
    ("a length below 0", cell("length", -1), "length -1"),
    ("a length beyond the game's longest", cell("length", 15), "length 15; this task allows.* at most 14 steps"),
    ("an attempt that was not played", cell("length", 0), "has length 0: it should have been played"),
    ("successes where none are defined", rows(lambda f: f.assign(success=pd.array([True] * 8, "boolean"))), "success"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole") / "run")


def copied(whole, tmp_path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (EPISODES, MANIFEST):
        (folder / name).write_bytes((whole / name).read_bytes())
    return folder


def test_the_run_they_are_made_of_is_read(whole, tmp_path):
    assert len(read_run(copied(whole, tmp_path)).episodes) == 8


@pytest.mark.parametrize(("mutate", "message"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_a_malformed_run_is_refused(whole, tmp_path, mutate, message):
    folder = copied(whole, tmp_path)
    mutate(folder)
    modules = set(sys.modules)
    tracemalloc.start()
    try:
        with pytest.raises(RecordError, match=message) as refusal:
            read_run(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert len(str(refusal.value)) < 1000
    assert "\x1b" not in str(refusal.value)
    assert "payload" not in {name.partition(".")[0] for name in set(sys.modules) - modules}


def test_a_file_of_too_many_rows_is_never_unpacked(whole, tmp_path, monkeypatch):
    folder = copied(whole, tmp_path)
    many_rows(folder)
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("its rows were read"))
    with pytest.raises(RecordError, match="500,000 rows"):
        read_run(folder)


def test_cases_are_not_computed_for_a_run_out_of_bounds(whole, tmp_path, monkeypatch):
    folder = copied(whole, tmp_path)
    manifest(rollouts_per_task=10**9)(folder)
    monkeypatch.setattr(checks, "_variants", lambda *_: pytest.fail("cases were computed"))
    with pytest.raises(RecordError, match="out of bounds"):
        read_run(folder)


@pytest.mark.parametrize(
    ("env_id", "task", "least", "most"),
    [
        ("MTPOPGym-v0", "MineSweeperEasy", -1.0, 1.0),
        ("MTBabyAI-v0", "BabyAI-GoToObj-v0", 0.0, 1.0),
        ("ML10-v0", "drawer-open-v3", 0.0, 5000.0),
        ("MTProcgen-Easy-v0", "coinrun", -10_000.0, 10_000.0),
        ("MTAtari-v0", "pong", -1e9, 1e9),
    ],
)
def test_returns_keep_to_each_suites_bounds(tmp_path, env_id, task, least, most):
    folder = write(tmp_path / "run", env_id, [task], 1)
    for value in (least, most):
        cell("return", value)(folder)
        assert read_run(folder).episodes["return"][0] == value
    for value in (least - abs(most) / 100, most * 1.01):
        cell("return", value)(folder)
        with pytest.raises(RecordError, match="this task allows returns"):
            read_run(folder)


def test_a_suite_with_successes_has_one_in_every_row(tmp_path):
    folder = write(tmp_path / "run", "MTBabyAI-v0", ["BabyAI-GoToObj-v0"])
    cell("success", None, row=1)(folder)
    with pytest.raises(RecordError, match="rollout 0, attempt 2 has no success; on suite 'babyai' every attempt"):
        read_run(folder)


def test_rollouts_keep_to_their_time_limit(tmp_path):
    folder = write(tmp_path / "run", "MTPOPGym-v0", ["RepeatFirstEasy"], max_steps=10)
    cell("length", 0, row=1)(folder)  # the limit left it unplayed
    read_run(folder)
    cell("return", 1.0, row=1)(folder)
    with pytest.raises(RecordError, match="attempt 2 has length 0: it should have been played"):
        read_run(folder)
    cell("return", 0.0, row=1)(folder)
    cell("length", 11)(folder)
    with pytest.raises(RecordError, match="rollout 0 has 11 steps, but rollouts end after 10"):
        read_run(folder)


def test_a_suite_of_ones_own_is_read_where_it_is_registered(tmp_path, monkeypatch):
    with monkeypatch.context() as registered:
        toy.register(registered)
        folder = write(tmp_path / "run", "Toy-v0", ["far"])
        assert len(read_run(folder).episodes) == 4
    with pytest.raises(RecordError, match="There is no environment 'Toy-v0'"):
        read_run(folder)


def test_every_argument_of_an_evaluation_can_be_checked():
    assert sorted(checks._ARGUMENTS) == sorted([*evaluation.ENV_KWARGS, "split"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"agent": "x" * 201}, "agent should be a name"),
        ({"agent": "a\tb"}, "agent should be a name"),
        ({"env_kwargs": {"k": 1001}}, "k should be an integer|out of bounds"),
        ({"rollouts_per_task": 10**6}, "out of bounds"),
        ({"train_seed": -1}, "train_seed should be"),
    ],
)
def test_what_could_not_be_read_back_is_not_played(tmp_path, arguments, message, monkeypatch):
    monkeypatch.setattr(evaluation, "manifest_cases", None)  # nor are its cases computed, which would take minutes
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate("MTPOPGym-v0", "random", tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()
