"""A report says what the scores say, fetches and runs nothing, and treats names as text."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

import mtbench
from mtbench.cli import command_line
from mtbench.errors import UsageError
from mtbench.reports import FIGURES, HTML, MARKDOWN, write_report
from mtbench.reports.curves import CONFIG, LOG, read_curve
from mtbench.scoring.tables import bracket
from tests import toy
from tests.paths import RESULTS

HOSTILE = "<img src=x onerror=alert(1)>](javascript:alert(1))|_"


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toy.register(monkeypatch)


@pytest.fixture(scope="module")
def runs():
    tasks = ["RepeatFirstEasy", "HigherLowerEasy"]
    arguments = {"rollouts_per_task": 6, "env_kwargs": {"tasks": tasks}}
    agents = [("random", "random"), ("oracle", "oracle"), ("random", HOSTILE)]
    popgym = [mtbench.evaluate("MTPOPGym-v0", policy, agent=agent, **arguments) for policy, agent in agents]
    missions = {"tasks": ["BabyAI-GoToRedBall-v0"]}
    babyai = mtbench.evaluate(
        "MTBabyAI-v0", "random", split="train", rollouts_per_task=6, audit=True, env_kwargs=missions
    )
    return [*popgym, babyai]


def training_run(folder, lines=(), **config):
    folder.mkdir(parents=True)
    env = {"tasks": ["RepeatFirstEasy"]}
    (folder / CONFIG).write_text(json.dumps({"env_id": "MTPOPGym-v0", "env": env, **config}))
    (folder / LOG).write_text("".join(f"{line}\n" for line in lines))
    return folder


def evaluated(updates, value):
    return json.dumps({"updates": updates, "steps": 100 * updates, "evaluation": {"RepeatFirstEasy": value}})


@pytest.fixture
def curve(tmp_path):
    lines = [evaluated(10, 0.0), json.dumps({"updates": 15, "steps": 3}), "{half", evaluated(20, 0.5), evaluated(30, 1)]
    return read_curve(training_run(tmp_path / "training" / "seed0", lines))


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what matters."""

    VOID = ("meta", "path", "br", "img", "rect", "use", "line")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.cells = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_a_report_says_what_the_scores_say(tmp_path, runs, curve):
    page = write_report(runs, [curve], tmp_path / "report")
    text = page.read_text()
    cells = Page(text).cells
    markdown = (tmp_path / "report" / MARKDOWN).read_text()
    for group in (runs[:3], runs[3:]):
        scores = mtbench.score(group)
        for own in scores.agents:
            for scale in scores.references.scales:
                shown = bracket(own.aggregates[scale]["mean"])
                assert shown in cells
                assert shown in markdown
            for lost in own.audit.values():
                assert bracket(lost.means["oracle"]) in cells
    for heading in ("Overview", "MTPOPGym-v0, test split", "MTBabyAI-v0, train split", "Learning curves", "Provenance"):
        assert f"<h2>{heading}</h2>" in text
        assert f"## {heading}" in markdown
    assert runs[0].manifest["episodes_sha256"][:12] in cells


def test_nothing_is_fetched_or_run(tmp_path, runs, curve):
    text = write_report(runs, [curve], tmp_path / "report").read_text()
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "link", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name != "src"
        if name in ("href", "xlink:href"):
            assert value.startswith("#")
    assert "img" not in page.tags
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)", text)


def test_names_are_text(tmp_path, runs, curve):
    page = write_report(runs, [curve], tmp_path / "report")
    assert "&lt;img src=x onerror=alert(1)&gt;" in page.read_text()
    markdown = (tmp_path / "report" / MARKDOWN).read_text()
    assert "<img" not in markdown
    assert "](javascript" not in markdown
    for figure in (tmp_path / "report" / FIGURES).glob("*.svg"):
        assert "<img" not in figure.read_text()


def test_every_figure_is_there_as_png_and_svg(tmp_path, runs, curve):
    write_report(runs, [curve], tmp_path / "report")
    named = re.findall(r"\]\((figures/[^)]+)\)", (tmp_path / "report" / MARKDOWN).read_text())
    assert {"evaluation-1-tasks", "evaluation-1-attempts", "evaluation-2-audit", "learning-1"} <= {
        name.removeprefix("figures/").removesuffix(".png") for name in named
    }
    for name in named:
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")
        svg = (tmp_path / "report" / name).with_suffix(".svg").read_text()
        assert svg.startswith("<svg")
        assert "<text" in svg, "text stays text"


def test_the_same_runs_give_the_same_pages(tmp_path, runs, curve):
    one, two = (write_report(runs, [curve], tmp_path / name).read_bytes() for name in ("one", "two"))
    assert one == two


def test_an_earlier_report_is_replaced_and_nothing_else(tmp_path, runs):
    out = tmp_path / "report"
    write_report(runs[:1], [], out)
    (out / "old").touch()
    write_report(runs[:2], [], out)
    assert sorted(path.name for path in out.iterdir()) == [FIGURES, HTML, MARKDOWN]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="something else than a report"):
        write_report(runs[:1], [], tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="nothing to report"):
        write_report([], [], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_curves_are_on_the_suites_scale(curve):
    from mtbench.scoring.references import load_references

    scale = next(iter(load_references("popgym").scales.values()))
    assert curve.updates == (10, 20, 30)
    assert curve.steps == (1000, 2000, 3000)
    low, high = scale.low["RepeatFirstEasy"].value, scale.high["RepeatFirstEasy"].value
    assert curve.scores == pytest.approx([(value - low) / (high - low) for value in (0.0, 0.5, 1.0)])


@pytest.mark.parametrize(
    ("lines", "config", "message"),
    [
        ([evaluated(1, 1)], {"env_id": "Unknown-v0"}, "Unknown-v0"),
        ([evaluated(1, 1)], {"env": {"suite": "os:system"}}, "environment argument"),
        ([evaluated(1, 1)], {"env": []}, "does not describe a training run"),
        (['{"updates":1,"steps":1,"evaluation":{"Unknown":1}}'], {}, "evaluates no task"),
    ],
)
def test_foreign_training_runs_are_refused(tmp_path, lines, config, message):
    folder = training_run(tmp_path / "run", lines, **config)
    with pytest.raises(UsageError, match=message):
        read_curve(folder)


@pytest.mark.parametrize(
    "line", ['{"updates":1,"steps":NaN,"evaluation":{"RepeatFirstEasy":1}}', "[" * 10_000, '{"evaluation":3}', "\0"]
)
def test_damaged_lines_are_left_out(tmp_path, line):
    assert read_curve(training_run(tmp_path / "none", [line])) is None
    kept = read_curve(training_run(tmp_path / "some", [line, evaluated(7, 0.25)]))
    assert kept.updates == (7,)


def test_the_command_takes_runs_folders_and_training_runs(tmp_path):
    training_run(tmp_path / "runs" / "seed0", [evaluated(10, 0.5)])
    shutil.copytree(RESULTS / "MTPOPGym-v0" / "random", tmp_path / "runs" / "seed0" / "final")
    shown = CliRunner().invoke(
        command_line(),
        ["report", str(tmp_path / "runs"), str(tmp_path / "runs" / "seed0"), "--out", str(tmp_path / "out")],
    )
    assert shown.exit_code == 0, shown.exception
    text = (tmp_path / "out" / HTML).read_text()
    assert "Learning curves" in text
    assert "MTPOPGym-v0, test split" in text
    wrong = CliRunner().invoke(command_line(), ["report", str(tmp_path / "nothing"), "--out", str(tmp_path / "x")])
    assert "is not a folder" in str(wrong.exception)
    assert not (tmp_path / "x").exists()
