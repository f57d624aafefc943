import pytest

from mtbench.records import write_json
from mtbench.registration import TABLE

from . import golden

FAMILIES = [pytest.param(family, id="+".join(row.id for row in family)) for family in golden.families()]


def each_of(cases):
    """(IDs, split, whatever `cases` lists for an ID and a split), with names that `-k` can pick."""
    return [
        pytest.param(family, split, case, id=f"{'+'.join(row.id for row in family)}-{split}-{name}")
        for family in golden.families()
        for split in ("train", "test")
        for name, case in cases(family[0], split)
    ]


def batches(row, split):
    parts = golden.batches(row, split) if row.suite.engine else []
    return [("+".join(part) if len(part) < 4 else f"{part[0]}_to_{part[-1]}", part) for part in parts]


def tasks(row, split):
    return [(task, task) for played, task in golden.cases(row) if played == split]


@pytest.mark.parametrize(("family", "split", "task"), each_of(tasks))
def test_the_trace_has_not_changed(family, split, task):
    """A failure here means that results will differ: undo the change or register a new version."""
    check(family, split, [task], lambda rows, *seeds: {task: golden.play_alone(rows, split, task, *seeds)})


@pytest.mark.parametrize(("family", "split", "tasks"), each_of(batches))
def test_the_engine_plays_the_same_traces(family, split, tasks):
    check(family, split, tasks, lambda rows, *seeds: golden.play_batch(rows, split, tasks, *seeds))


def check(family, split, tasks, play):
    """The first ID of a family plays all rollouts, and the traces of the others follow from what they pay. The others
    play one rollout of each task themselves, in one split: it shows that they pay so and do nothing else otherwise."""
    known = {row.id: golden.read(row.id) for row in family}
    for row in family:
        here = golden.platform_name(row)
        if known[row.id].get("platform", here) != here:
            pytest.skip(f"the golden frames are of {known[row.id]['platform']}")
    traces = play(family)
    for task in tasks:
        for row in family:
            trace, wanted = traces[task][row.id].entry(), known[row.id][f"{split}/{task}"]
            where = f"{row.id}, {task}"
            assert trace["prefixes"] == wanted["prefixes"], f"{where}: the first rollout differs by the wrong prefix"
            assert trace == wanted, where
    for row in family[1:] if split == "train" else []:
        own = play([row], golden.SEEDS[:1])
        for task in tasks:
            assert own[task][row.id].first == traces[task][row.id].first, f"{row.id}, {task}: its own rollout"


def test_only_ids_that_play_the_same_are_played_together():
    together = [[row.id for row in family] for family in golden.families() if len(family) > 1]
    assert together == [["MTProcgen-Easy-v0", "MTProcgen-EasyRescaled-v0"], ["MTAtari-v0", "MTAtari-Clipped-v0"]]
    assert sorted(row.id for family in golden.families() for row in family) == sorted(row.id for row in TABLE)


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_play_every_task(family):
    for split in ("train", "test"):
        played = [task for part in golden.batches(family[0], split) for task in part]
        assert sorted(played) == sorted(family[0].suite.splits[split].tasks)


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
