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


def tasks(row, split):
    return [(task, task) for played, task in golden.cases(row) if played == split]


def batches(row, split):
    found = []
    for slots in golden.batches(row, split) if row.suite.engine else []:
        names = [task for jobs in slots for task in dict(jobs)]
        found.append(("+".join(names) if len(names) < 4 else f"{names[0]}_to_{names[-1]}", slots))
    return found


def known_of(family):
    known = {row.id: golden.read(row.id) for row in family}
    for row in family:
        here = golden.platform_name(row)
        if known[row.id].get("platform", here) != here:
            pytest.skip(f"the golden frames are of {known[row.id]['platform']}")
    return known


# The first ID of a family plays, and the traces of the others follow from what they pay. The others play some rollouts
# themselves: one of each task of a split alone, and one of each task of a batch. These show that they pay so, and that
# all else is equal.


@pytest.mark.parametrize(("family", "split", "task"), each_of(tasks))
def test_the_trace_has_not_changed(family, split, task):
    """A failure here means that results will differ: undo the change or register a new version."""
    seeds = golden.seeds_alone(family[0], split, task)
    known, traces = known_of(family), golden.play_alone(family, split, task, seeds)
    for row in family:
        trace, wanted = traces[row.id].entry(), known[row.id][f"{split}/{task}"]
        if len(seeds) < len(golden.SEEDS):  # the engine plays the others
            assert traces[row.id].rollouts == [wanted["rollouts"][golden.SEEDS.index(seed)] for seed in seeds]
            continue
        assert trace["prefixes"] == wanted["prefixes"], f"{row.id}: the first rollout differs by the first wrong prefix"
        assert trace == {name: wanted[name] for name in trace}, row.id
        assert wanted.get("rollouts", traces[row.id].rollouts) == traces[row.id].rollouts
    for row in family[1:] if split == "train" else []:
        i = traces[row.id].richest()
        own = golden.play_alone([row], split, task, [golden.SEEDS[i]])[row.id]
        assert own.rollouts == [traces[row.id].rollouts[i]], f"{row.id}: its own rollout"


@pytest.mark.parametrize(("family", "split", "slots"), each_of(batches))
def test_the_engine_plays_the_same_traces(family, split, slots):
    """Where rollouts are long, one of each task: the games' own code plays them. The test above plays all on Atari, and
    the two others on Meta-World."""
    known, traces = known_of(family), golden.play_batch(family, split, slots)
    for task, seed in (job for jobs in slots for job in jobs):
        wanted = known[family[0].id][f"{split}/{task}"]
        if golden.is_long(family[0]):
            assert traces[task][family[0].id].rollouts == [wanted["rollouts"][golden.SEEDS.index(seed)]], task
        else:
            for row in family:
                assert traces[task][row.id].entry() == known[row.id][f"{split}/{task}"], (row.id, task)
    for row in family[1:] if split == "train" and slots == golden.batches(family[0], split)[0] else []:
        richest = {task: traces[task][row.id].richest() for task in traces}
        seeds = {task: [seed for jobs in slots for name, seed in jobs if name == task] for task in traces}
        own = [[(task, seeds[task][richest[task]]) for task in dict(jobs)] for jobs in slots]
        for task, played in golden.play_batch([row], split, own).items():
            assert played[row.id].rollouts == [traces[task][row.id].rollouts[richest[task]]], (row.id, task)


def test_only_ids_that_play_the_same_are_played_together():
    together = [[row.id for row in family] for family in golden.families() if len(family) > 1]
    assert together == [["MTProcgen-Easy-v0", "MTProcgen-EasyRescaled-v0"], ["MTAtari-v0", "MTAtari-Clipped-v0"]]
    assert sorted(row.id for family in golden.families() for row in family) == sorted(row.id for row in TABLE)


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_play_every_task(family):
    for split in ("train", "test"):
        jobs = [job for slots in golden.batches(family[0], split) for jobs in slots for job in jobs]
        seeds = golden.SEEDS[: 1 if golden.is_long(family[0]) else 3]
        assert sorted(task for task, _ in jobs) == sorted(family[0].suite.splits[split].tasks * len(seeds))
        assert len(set(jobs)) == len(jobs)


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
