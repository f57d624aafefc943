"""Recorded actions: whole, compact, refused where they are not what the records need, and played again."""

import hashlib
import json
import os
import shutil
import zlib

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mtbench import traces
from mtbench.cli import command_line
from mtbench.errors import RecordError, UsageError
from mtbench.evaluation import evaluate
from mtbench.records import EPISODES, MANIFEST, read_run
from mtbench.traces import ACTIONS
from mtbench.verification import verify
from tests import toy
from tests.test_evaluation import Interrupting
from tests.test_playing import SPLITS, TASKS, Reader


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toy.register(monkeypatch)


def played(out, policy="random", env_id="MTPOPGym-v0", tasks=TASKS["MTPOPGym-v0"], **changes):
    arguments = {"rollouts_per_task": 4, "save_actions": True, "env_kwargs": {"tasks": tasks}, **changes}
    return evaluate(env_id, policy, out, **arguments)


@pytest.mark.parametrize("env_id", TASKS)
@pytest.mark.parametrize("reset", ["next-step", "same-step"])
def test_every_suite_is_played_again_to_the_last_bit(tmp_path, env_id, reset):
    """With a time limit, which cuts some rollouts off in the middle, between or before attempts."""
    tasks = SPLITS.get(env_id, TASKS[env_id])
    run = played(
        tmp_path, Reader(), env_id, rollouts_per_task=3,
        env_kwargs={"tasks": tasks, "attempt_reset": reset, "max_steps": 150 if env_id == "ML10-v0" else 60},
    )  # fmt: skip
    found = verify(read_run(tmp_path), jobs=1)
    assert found.differences == []
    assert found.rollouts == len(run.episodes) // run.manifest["k"]
    assert found.steps == sum(len(a) for a in actions_of(run)) > run.episodes["length"].sum() - 1


def actions_of(run):
    import gymnasium as gym

    with gym.make(run.manifest["env_id"], **run.manifest["env_kwargs"]) as env:
        return traces.read_actions(run, env.action_space)


def test_recording_changes_no_record(tmp_path):
    with_actions = played(tmp_path / "with")
    without = played(tmp_path / "without", save_actions=False)
    pd.testing.assert_frame_equal(with_actions.episodes, without.episodes)
    assert not (tmp_path / "without" / ACTIONS).exists()
    with pytest.raises(RecordError, match="has no recorded actions"):
        verify(without)


def test_an_action_is_as_small_as_its_space_allows(tmp_path):
    run = played(tmp_path)
    actions = actions_of(run)
    assert {a.dtype for a in actions} == {np.dtype(np.uint8)}
    assert (tmp_path / ACTIONS).stat().st_size < sum(map(len, actions)), "27 actions take less than a byte each"


@pytest.mark.parametrize("kind", [list, np.float64, np.float32])
def test_numbers_are_kept_as_the_environment_takes_them(tmp_path, kind):
    class Tired:
        def start(self, num_envs, *_):
            self.n, self.rng = num_envs, np.random.default_rng(0)

        def act(self, observations, reset_mask):
            actions = self.rng.uniform(0.1, 1, size=(self.n, 1))
            return [row.tolist() for row in actions] if kind is list else actions.astype(kind)

    run = played(tmp_path, Tired(), "Toy-v0", tasks=["far"], num_envs=3)
    assert actions_of(run)[0].dtype == np.float32
    assert verify(read_run(tmp_path)).differences == []


def test_an_oracle_and_the_audits_are_played_again_too(tmp_path):
    """Replay shows that returns are real, not that the policy was allowed to see what it saw."""
    run = played(tmp_path / "oracle", "oracle", tasks=["RepeatFirstEasy"])
    assert verify(read_run(tmp_path / "oracle")).differences == []
    assert run.manifest["privileged"]
    audited = played(tmp_path / "audit", "random", "MTBabyAI-v0", SPLITS["MTBabyAI-v0"], audit=True)
    assert len(audited.audits) == 2
    for audit in read_run(tmp_path / "audit").audits.values():
        assert verify(audit).differences == []


def test_several_processes_find_the_same(tmp_path, monkeypatch):
    import mtbench.verification

    monkeypatch.setattr(mtbench.verification, "_SHARD", 4)
    alone, together = (played(tmp_path / str(jobs), jobs=jobs, num_envs=1) for jobs in (1, 2))
    assert alone.manifest[traces.DIGEST] == together.manifest[traces.DIGEST]
    seen = []
    assert verify(together, jobs=2, on_rollout=lambda done, total: seen.append((done, total))).differences == []
    assert seen[-1] == (12, 12)


def test_an_interrupted_evaluation_ends_with_the_same_actions(tmp_path):
    whole = played(tmp_path / "whole", num_envs=1)
    for after in (5, 9):
        with pytest.raises(KeyboardInterrupt):
            played(tmp_path / "cut", num_envs=1, on_rollout=Interrupting(after))
    shard = tmp_path / "cut" / ".partial" / "shard-00000.actions"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="Playing shard 0 again"):
        resumed = played(tmp_path / "cut", num_envs=1)
    assert resumed.manifest[traces.DIGEST] == whole.manifest[traces.DIGEST]
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == [ACTIONS, EPISODES, MANIFEST]


def test_an_evaluation_without_actions_gets_none_later(tmp_path):
    played(tmp_path, save_actions=False)
    with pytest.raises(UsageError, match="without its actions"):
        played(tmp_path)
    with pytest.raises(UsageError, match="give `out`"):
        played(None)


# ---- tampering ----


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return played(tmp_path_factory.mktemp("honest") / "run")


@pytest.fixture
def folder(honest, tmp_path):
    return shutil.copytree(honest.path, tmp_path / "copy")


def edit_rows(folder, change):
    """Rows edited by somebody who knows about the digest."""
    frame = pd.read_parquet(folder / EPISODES)
    change(frame)
    frame.to_parquet(folder / EPISODES, index=False)
    edit_manifest(folder, episodes_sha256=hashlib.sha256((folder / EPISODES).read_bytes()).hexdigest())


def edit_manifest(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def edit_actions(folder, content):
    (folder / ACTIONS).write_bytes(content)
    edit_manifest(folder, actions_sha256=hashlib.sha256(content).hexdigest())


def raw(folder):
    return bytearray(zlib.decompress((folder / ACTIONS).read_bytes()))


def test_an_edited_return_is_named(folder, honest):
    edit_rows(folder, lambda frame: frame.__setitem__("return", frame["return"].mask(frame.index == 3, 0.875)))
    (found,) = verify(read_run(folder)).differences
    assert found == (
        f"task MineSweeperEasy, rollout 1, attempt 2: recorded return 0.875, replayed {honest.episodes['return'][3]}."
    )


def test_swapped_rollouts_are_named(folder):
    """Both lengths stay, so that the number of actions is as it was."""

    def swap(frame):
        rows = frame["task"] == "RepeatFirstEasy"
        values = frame.loc[rows, ["return", "length"]].to_numpy()
        frame.loc[rows, "return"] = np.roll(values[:, 0], 2)

    edit_rows(folder, swap)
    assert any("RepeatFirstEasy" in sentence for sentence in verify(read_run(folder)).differences)


def test_an_edited_length_is_named(folder):
    """One rollout lasts a step longer, another a step less: all of the actions between them are another's."""

    def move(frame):
        cart = frame.index[frame["task"] == "PositionOnlyCartPoleEasy"]
        frame.loc[cart[0], "length"] += 1
        frame.loc[cart[3], "length"] -= 1

    edit_rows(folder, move)
    differences = verify(read_run(folder)).differences
    assert any("PositionOnlyCartPoleEasy, rollout 0, attempt 1: recorded length" in text for text in differences)
    assert any("recorded actions, but" in text for text in differences)


def test_an_edited_action_is_found(folder):
    content = raw(folder)
    content[5:200] = bytes(195)
    edit_actions(folder, zlib.compress(bytes(content)))
    assert "task MineSweeperEasy, rollout" in verify(read_run(folder)).differences[0]


def test_an_edited_variant_is_named(folder):
    edit_rows(folder, lambda frame: frame.__setitem__("variant", frame["variant"] + 1))
    with pytest.raises(RecordError, match="was played on variant"):
        read_run(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda folder: zlib.compress(bytes(raw(folder)) + b"\0"), "it holds more"),
        (lambda folder: zlib.compress(bytes(raw(folder))[:-1]), "it holds"),
        (lambda folder: zlib.compress(bytes(raw(folder))) + b"more", "it holds"),
        (lambda folder: zlib.compress(bytes(raw(folder)))[:-3], "it holds"),
        (lambda folder: zlib.compress(bytes(10**8)), "is too large|it holds more"),
        (lambda folder: b"no zlib", "holds no packed actions"),
        (lambda folder: os.urandom(10**6), "is too large"),
        (lambda folder: b"", "it holds 0"),
    ],
    ids=["one more", "one less", "a tail", "cut off", "a bomb", "text", "noise", "nothing"],
)
def test_files_of_other_actions_are_refused(folder, content, message):
    edit_actions(folder, content(folder))
    with pytest.raises(RecordError, match=message):
        verify(read_run(folder))


def test_files_that_are_no_files_are_refused(folder, tmp_path):
    content = (folder / ACTIONS).read_bytes()
    (folder / ACTIONS).write_bytes(content[:-1] + b"x")
    with pytest.raises(RecordError, match="checksum differs"):
        verify(read_run(folder))
    (folder / ACTIONS).unlink()
    with pytest.raises(RecordError, match="does not exist"):
        verify(read_run(folder))
    (tmp_path / "elsewhere").write_bytes(content)
    (folder / ACTIONS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError, match="symbolic link"):
        verify(read_run(folder))
    edit_manifest(folder, actions_sha256=7)
    with pytest.raises(RecordError, match="actions_sha256 should be text"):
        read_run(folder)


def test_rows_in_another_order_are_refused(folder):
    frame = pd.read_parquet(folder / EPISODES).iloc[::-1]
    frame.to_parquet(folder / EPISODES, index=False)
    edit_manifest(folder, episodes_sha256=hashlib.sha256((folder / EPISODES).read_bytes()).hexdigest())
    with pytest.raises(RecordError, match="must follow one another"):
        verify(read_run(folder))


def test_the_command_tells(folder, honest):
    run = CliRunner().invoke
    honestly = run(command_line(), ["verify", str(honest.path)])
    assert honestly.exit_code == 0
    assert "as recorded, to the last bit (12 rollouts" in honestly.stdout
    edit_rows(folder, lambda frame: frame.__setitem__("return", -frame["return"].abs() / 2))
    wrong = run(command_line(), ["verify", str(folder)])
    assert wrong.exit_code == 1
    assert "differences" in wrong.stdout
    (as_json,) = json.loads(run(command_line(), ["verify", str(folder), "--json"]).stdout)
    assert as_json["rollouts"] == 12
    assert len(as_json["differences"]) > 5
