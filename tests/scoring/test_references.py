"""Every offered task can be scored, and every trap of the sources is told where it matters."""

import html
import json

import numpy as np
import pytest

from mtbench.errors import UsageError
from mtbench.registration import TABLE
from mtbench.scoring import score
from mtbench.scoring.references import load_references, missing_references
from mtbench.scoring.report import FORMATS, notes, render
from mtbench.suite import load_suite
from tests import toy
from tests.scoring.runs import made_up

SUITES = sorted({row.kwargs["suite"] for row in TABLE})
IDS = {row.kwargs["suite"]: row.id for row in reversed(TABLE)}


def scores_of(suite, tasks, split="test", **more):
    return score([made_up(suite=suite, env_id=IDS[suite], tasks=tasks, split=split, rollouts=2, **more)], replicates=20)


@pytest.mark.parametrize("suite", SUITES)
def test_every_offered_task_can_be_scored(suite):
    for split in load_suite(suite).splits.values():
        tasks = [*split.tasks, *split.extra_tasks]
        scores = scores_of(suite, tasks, split.name)
        assert scores.references.scales
        for scale in scores.references.scales:
            assert np.isfinite([e.value for e in scores.agents[0].normalized[scale].values()]).all()
        known = load_references(suite).missing(tasks)
        assert scores.left_out == known == missing_references(suite, tasks)
        for scale in known:
            assert f"Scale {scale} is left out" in " ".join(notes(scores))


def test_missing_references_are_what_has_none():
    atari = load_suite("atari")
    missing = missing_references("atari", list(atari.tasks))
    assert set(missing) == {"human", "human-mnih2015"}
    assert len(missing["human"]) == 47
    assert "adventure" in missing["human"]
    assert "pong" not in missing["human"]
    babyai = load_suite("babyai").splits["train"]
    assert missing_references("babyai", [*babyai.tasks, *babyai.extra_tasks]) == {}


@pytest.mark.parametrize("suite", SUITES)
def test_every_scale_covers_the_default_tasks(suite):
    for split in load_suite(suite).splits.values():
        assert missing_references(suite, split.tasks) == {}


def test_a_mixed_choice_leaves_out_only_what_it_must():
    references = load_references("atari")
    assert set(references.covering(["pong"]).scales) == {"human", "human-mnih2015"}
    assert list(references.covering(["pong", "adventure"]).scales) == ["raw"]


def test_a_suite_without_references_has_the_raw_scale_alone():
    references = load_references(toy.SUITE)
    assert list(references.scales) == ["raw"]
    assert references.scales["raw"].normalize("near", np.array([3.5])).tolist() == [3.5]
    assert missing_references("tests.toy:SUITE", ["near"]) == {}
    assert references.notes == references.warnings == ()


@pytest.mark.parametrize("suite", ["chess", "../data/popgym", "/etc/passwd", "popgym/x"])
def test_a_name_that_is_no_suite_opens_no_file(suite):
    with pytest.raises(UsageError, match="There is no suite"):
        load_references(suite)


def test_a_scale_names_the_task_that_it_lacks():
    with pytest.raises(ValueError, match="human scale has no reference for task 'adventure'"):
        load_references("atari").scales["human"].normalize("adventure", np.zeros(1))


@pytest.mark.parametrize("suite", SUITES)
def test_every_note_can_apply(suite):
    """A condition with a slip of the pen would hide its note for ever."""
    references, declared = load_references(suite), load_suite(suite)
    assert references.warnings or references.notes
    for note in references.conditional:
        assert set(note.scales) <= set(references.scales)
        assert set(note.splits) <= set(declared.splits)
        for pattern in note.tasks:
            assert any(
                note.applies([t], (note.splits or ("test",))[0], list(references.scales)) for t in declared.tasks
            )
            assert any(task in json.dumps(pattern) or pattern.rstrip("*") in task for task in declared.tasks)


# The rows of the list of known traps that belong under scores or in `mtbench info`, by their number there.
TRAPS = [
    (1, "babyai", "test", ["BabyAI-KeyCorridorS6R3-v0"], "same environment as BabyAI-KeyCorridor-v0"),
    (1, "babyai", "train", ["BabyAI-KeyCorridor-v0"], "same environment as BabyAI-KeyCorridor-v0"),
    (4, "babyai", "train", ["BabyAI-Unlock-v0"], "2.2 %"),
    (5, "babyai", "train", ["BabyAI-OpenRedDoor-v0"], "memory of training as well: BabyAI-OpenRedDoor-v0 100.0 %"),
    (6, "procgen-easy", "test", ["coinrun"], "coinrun 3.8 %"),
    (6, "procgen-memory-hard", "test", ["maze"], "maze 4.0 %"),
    (7, "procgen-easy", "test", ["ninja"], "masked observations"),
    (7, "procgen-easy", "test", ["jumper"], "is 3 in transcriptions of the paper's table, 1 and 1.5"),
    (8, "procgen-memory-hard", "test", ["maze"], "scores above or below 1 mean little"),
    (10, "atari", "test", ["seaquest"], "42,054.7 and 20,182"),
    (10, "atari", "test", ["video_pinball"], "16,256.9"),
    (13, "metaworld-ml45", "test", ["door-lock-v3"], "PR 577"),
    (13, "metaworld-ml10", "train", ["reach-v3"], "v1, v2 and v3 are not comparable"),
    (13, "metaworld-ml45", "train", ["reach-v3"], "40 test goals"),
    (15, "popgym", "test", ["RepeatFirstEasy"], "maxima over training"),
    (15, "popgym", "test", ["RepeatFirstEasy"], "best of 14 sequence models"),
    (16, "popgym", "test", ["CountRecallEasy"], "popgym 1.0.7 changed CountRecall"),
    (16, "popgym", "test", ["MineSweeperEasy"], "ends one step earlier"),
    (17, "popgym", "test", ["AutoencodeHard"], "just above random play"),
    (18, "popgym", "test", ["HigherLowerEasy"], "counting cards"),
    (18, "popgym", "test", ["VelocityOnlyCartpoleHard"], "shows positions"),
    (18, "popgym", "test", ["MineSweeperEasy"], "no published result for VelocityOnlyCartpole and MineSweeperEasy"),
]


@pytest.mark.parametrize(("number", "suite", "split", "tasks", "words"), TRAPS)
def test_traps_are_told_under_scores(number, suite, split, tasks, words):
    scores = scores_of(suite, tasks, split)
    assert any(words in note for note in json.loads(render(scores, "json"))["notes"])
    assert words in html.unescape(render(scores, "html"))
    assert words in render(scores, "latex").replace("\\%", "%")
    assert words in render(scores, "md")


def test_scores_of_repeated_tasks_alone_have_no_empty_rows():
    own = scores_of("babyai", ["BabyAI-KeyCorridorS6R3-v0"]).agents[0]
    assert own.new == {}


def test_notes_are_told_only_where_they_matter():
    references = load_references("popgym")
    assert not any("CountRecall" in note for note in references.notes_for(["RepeatFirstEasy"], "test"))
    assert references.notes_for(["AutoencodeEasy"], "test", ["oracle"]) == []
    assert scores_of("babyai", ["BabyAI-OpenRedDoor-v0"], "train").seen == {"BabyAI-OpenRedDoor-v0": 1.0}
    assert scores_of("babyai", ["BabyAI-GoToRedBall-v0"], "train").seen == {}
    assert scores_of("babyai", ["BabyAI-GoToObjS4-v0"], "test").seen == {}


def test_rliables_bootstrap_is_told_to_be_too_narrow():
    """Trap 22."""
    run = made_up(rollouts=2)
    for format in FORMATS:
        if format != "csv":
            assert "too narrow" in render(score([run], interval="stratified-bootstrap"), format)
