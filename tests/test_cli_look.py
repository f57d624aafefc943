"""``mtbench list``, ``info`` and ``play``."""

import json
import os
from typing import ClassVar

import numpy as np
import pytest

from mtbench import facts, registration
from mtbench.rollout import MetaRollout
from mtbench.scoring.references import load_references
from mtbench.suite import load_suite
from tests import toy
from tests.commands import printed, run, terminal
from tests.toy import Toy


def test_list_and_info(tmp_path):
    assert "MTPOPGym-v0" in run("list", cwd=tmp_path)
    shown = run("info", "MTPOPGym-v0", cwd=tmp_path)
    for word in ("k = 2", "k-shot", "Discrete(27)", "AutoencodeEasy", "best_published", "Morad"):
        assert word in shown


def test_the_version_names_the_revision(tmp_path):
    """Of a checkout; an installed package has none."""
    import mtbench
    from mtbench.provenance import git_commit

    commit = git_commit()
    shown = run("--version", cwd=tmp_path).strip()
    assert shown == (f"mtbench {mtbench.__version__} ({commit})" if commit else f"mtbench {mtbench.__version__}")


@pytest.mark.parametrize("columns", [80, 200])
def test_list_is_whole_in_a_pipe_and_on_a_terminal(columns):
    piped = printed("list", columns=columns)
    assert terminal("list", columns=columns) == piped
    lines = piped.splitlines()
    assert max(map(len, lines)) <= 80
    for row in registration.TABLE:
        (line,) = (line for line in lines if line.startswith(f" {row.id} "))
        assert line.endswith(f"{row.kwargs['objective']:11}{row.summary}")
    assert "  popgym 1." in piped


def test_list_says_what_is_not_installed(monkeypatch):
    installed = facts._installed
    monkeypatch.setattr(facts, "_installed", lambda name: None if name == "ale-py" else installed(name))
    assert "ale-py is not installed; for MTAtari-v0, MTAtari-Clipped-v0" in printed("list")
    packages = {row["id"]: row["packages"] for row in json.loads(printed("list", "--json"))}
    assert packages["MTAtari-v0"] == {"ale-py": None}
    assert list(packages) == [row.id for row in registration.TABLE]


def test_info_breaks_no_line_in_a_pipe():
    lines = printed("info", "MTPOPGym-v0").splitlines()
    (source,) = (line for line in lines if line.startswith("best_published:"))
    assert source == f"best_published: {load_references('popgym').sources['best_published']}"
    assert len(source) > 80
    assert not any(line.endswith(" ") for line in lines)
    assert printed("info", "MTPOPGym-v0", columns=200).splitlines() == lines


def test_info_breaks_sentences_between_words_on_a_terminal():
    pytest.importorskip("popgym")
    shown = terminal("info", "MTPOPGym-v0", columns=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split() == printed("info", "MTPOPGym-v0").split()


def test_info_names_the_tasks_of_a_split_and_further_ones():
    pytest.importorskip("minigrid")
    suite = load_suite("babyai")
    for split in ("train", "test"):
        shown = printed("info", "MTBabyAI-v0", "--split", split)
        named = [line.split()[0] for line in shown.splitlines() if line.startswith(" BabyAI-")]
        assert named == [*suite.splits[split].tasks, *suite.splits[split].extra_tasks]
    chosen = printed("info", "MTBabyAI-v0", '--env=tasks=["BabyAI-Synth-v0"]')
    named = [line.split()[0] for line in chosen.splitlines() if line.startswith(" BabyAI-")]
    assert named[0] == "BabyAI-Synth-v0"
    assert named.count("BabyAI-Synth-v0") == 1


def test_info_as_json():
    def number(text):
        raise AssertionError(f"{text} is not JSON")

    content = json.loads(printed("info", "MTPOPGym-v0", "--json"), parse_constant=number)
    suite = load_suite("popgym")
    assert (content["suite"], content["k"], content["objective"]) == ("popgym", 2, "k-shot")
    space = suite.observation_space(2)
    assert content["observation_space"]["shape"] == list(space.shape)
    assert content["observation_space"]["dtype"] == str(space.dtype)
    assert content["observation_space"]["low"][0] == (space.low[0] if np.isfinite(space.low[0]) else None)
    assert content["action_space"]["n"] == 27
    for name, split in suite.splits.items():
        told = content["splits"][name]
        assert told["tasks"] == list(split.tasks)
        assert told["variants"]["drawn"]["count"] == len(split.variants)
        assert told["variants"]["evaluation"]["start"] == split.evaluation.start
    assert {task: told["longest_attempt"] for task, told in content["tasks"].items()} == {
        name: task.max_steps for name, task in suite.tasks.items()
    }
    scale = load_references("popgym").scales["published"]
    for task, told in content["tasks"].items():
        both = told["references"]["published"]
        assert both["low"] == {"value": scale.low[task].value, "entry": scale.low[task].entry}
        assert both["high"] == {"value": scale.high[task].value, "entry": scale.high[task].entry}
    assert content["warnings"] == list(load_references("popgym").warnings)


def test_info_as_json_lists_listed_variants_and_spaces_within_spaces():
    pytest.importorskip("minigrid")
    content = json.loads(printed("info", "MTBabyAI-v0", "--json"))
    assert content["observation_space"]["spaces"]["image"]["high"] == 10
    assert content["refused"] == dict(load_suite("babyai").refused)
    assert content["splits"]["train"]["further_tasks"] == list(load_suite("babyai").splits["train"].extra_tasks)
    values = load_suite("procgen-easy").splits["test-distinct"].variants.values
    assert facts._variants(load_suite("procgen-easy").splits["test-distinct"].variants) == {
        "count": 500,
        "values": list(values),
    }


class Remarkable(Toy):
    """A suite without references, with all that a suite may say of itself."""

    departures = ("Walks are [bold]shorter[/bold].", "Goals are others.")
    seen_variants: ClassVar = {"train": {"near": 0.25}}
    remarks: ClassVar = {"near": "Its goals are few.", "far": "Its goals are far."}


def test_info_of_a_suite_without_references(monkeypatch):
    toy.register(monkeypatch)
    monkeypatch.setattr("mtbench.cli._make", lambda env_id, options, **kwargs: MetaRollout(Remarkable()))
    shown = printed("info", "Toy-v0")
    for sentence in (
        "scale raw: the plain return",
        "- Walks are [bold]shorter[/bold].",
        "near: Its goals are few.",
        "0.25",
    ):
        assert sentence in shown
    assert "goals are far" not in shown, "of the other split"
    content = json.loads(printed("info", "Toy-v0", "--json"))
    assert content["tasks"]["near"]["references"] == {}
    assert content["seen_variants"] == {"train": {"near": 0.25}}
    assert content["departures"] == list(Remarkable.departures)
    assert content["remarks"] == Remarkable.remarks


def test_info_cuts_no_number_where_there_is_little_room(tmp_path):
    pytest.importorskip("metaworld")
    shown = run("info", "ML45-v0", cwd=tmp_path, env={**os.environ, "COLUMNS": "60"})
    row = next(line for line in shown.splitlines() if line.startswith(" assembly-v3"))
    task, steps, *anchors = row.split()
    assert (task, steps) == ("assembly-v3", "500")
    scales = load_references("metaworld-ml45").scales
    ends = [scales["raw"].low, scales["raw"].high, scales["oracle"].low, scales["oracle"].high]
    assert anchors == [f"{end[task].value:.3f}" for end in ends]


def test_info_draws_a_contact_sheet(tmp_path):
    from PIL import Image

    run("info", "MTPOPGym-v0", "--figure", "sheet.png", cwd=tmp_path)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 900
        assert image.height > 9 * 200


@pytest.mark.parametrize("video", ["out.gif", "out.mp4"])
def test_play_films_the_whole_rollout(tmp_path, video):
    out = run("play", "MTPOPGym-v0", "--policy", "oracle", "--task", "RepeatFirstEasy", "--video", video, cwd=tmp_path)
    assert "1.0000  51" in out
    if video.endswith("gif"):
        from PIL import Image

        with Image.open(tmp_path / video) as film:
            assert film.size == (480, 320)
            # Identical frames in a row may be merged; every other step shows another card.
            assert film.n_frames > 70
    else:
        import imageio_ffmpeg

        frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / video))
        assert frames == 1 + 51 + 1 + 51
        assert seconds == pytest.approx(10.4, abs=0.2)


def test_a_film_of_every_nth_step_has_the_same_speed(tmp_path):
    import imageio_ffmpeg

    arguments = ("MTPOPGym-v0", "--policy", "oracle", "--task", "RepeatFirstEasy", "--video", "out.mp4", "--every", "5")
    run("play", *arguments, cwd=tmp_path)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "out.mp4"))
    assert frames == 1 + 103 // 5 + 1, "the first, every fifth and the last"
    assert seconds == pytest.approx(10.4, abs=0.7)


def test_every_without_a_video_is_refused(tmp_path):
    assert "--video" in run("play", "MTPOPGym-v0", "--every", "5", cwd=tmp_path, code=2)


def test_play_can_pin_and_repeat(tmp_path):
    arguments = ("play", "MTPOPGym-v0", "--task", "MineSweeperEasy", "--variant", "5", "--seed", "3")
    assert run(*arguments, cwd=tmp_path) == run(*arguments, cwd=tmp_path)
