import gymnasium as gym
import pytest

from mtbench.records import write_json
from mtbench.registration import TABLE, find
from mtbench.testing.contract.unbatched import Unbatched

from . import golden

CASES = [
    (make, row.id, split, task)
    for row in TABLE
    for make in (gym.make, Unbatched)[: 1 + bool(row.suite.engine)]
    for split, task in golden.cases(row)
]


@pytest.mark.parametrize(("make", "env_id", "split", "task"), CASES)
def test_the_trace_has_not_changed(make, env_id, split, task):
    """A failure here means that results will differ: undo the change or register a new version."""
    known = golden.read(env_id)
    here = golden.platform_name(find(env_id))
    if known.get("platform", here) != here:
        pytest.skip(f"frames are known of {known['platform']} alone")
    trace, wanted = golden.trace_hash(env_id, split, task, make), known[f"{split}/{task}"]
    assert trace["prefixes"] == wanted["prefixes"], "the first rollout parts by the first of these steps that differs"
    assert trace == wanted


def test_entries_are_added_and_only_replaced_on_demand(tmp_path, monkeypatch):
    env_id, played = "MTPOPGym-v0", [("train", "MineSweeperEasy"), ("test", "HigherLowerEasy")]
    monkeypatch.setattr(golden, "cases", lambda row: played)
    golden.main([env_id, "--folder", str(tmp_path), "--workers", "1"])
    first = golden.read(env_id, tmp_path)
    assert first == {"/".join(case): golden.trace_hash(env_id, *case) for case in played}
    write_json(tmp_path / f"{env_id}.json", {"train/MineSweeperEasy": "by hand"})
    golden.main([env_id, "--folder", str(tmp_path), "--workers", "1"])
    assert golden.read(env_id, tmp_path) == {**first, "train/MineSweeperEasy": "by hand"}
    golden.main([env_id, "--folder", str(tmp_path), "--workers", "1", "--replace"])
    assert golden.read(env_id, tmp_path) == first
