"""Two agents on the same cases: differences against scipy's tests, and what cannot be paired."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

import mtbench
from mtbench.cli import command_line
from mtbench.records import RecordError
from mtbench.scoring.comparison import compare
from mtbench.scoring.references import load_references
from mtbench.suites.popgym import TASKS
from tests.scoring.runs import made_up

NAMES = list(TASKS)[:3]
SLOPES = load_references("popgym").scales["oracle"].slopes(NAMES)


def noisy(seed, agent, better=0.0, **changes):
    """A case is as hard for every agent; how hard varies much more than agents do."""
    rng, own = np.random.default_rng(0), np.random.default_rng(1000 + seed + len(agent))
    hard = {(task, rollout): rng.normal() / 5 for task in NAMES for rollout in range(40)}

    def value(task, attempt, rollout):
        return hard[task, rollout] + own.normal() / 50 + better * attempt

    made = made_up(agent=agent, tasks=NAMES, value=value, rollouts=40, train_seed=seed, **changes)
    return made


def scored(run):
    frame = run.episodes[run.episodes["attempt"] == 2]
    return np.stack([frame[frame["task"] == task].sort_values("rollout")["return"].to_numpy() for task in NAMES])


def test_several_runs_are_compared_by_welchs_test():
    ones, twos = [noisy(s, "one", 0.05 + s / 100) for s in range(4)], [noisy(s, "other") for s in range(3)]
    found = compare(ones, twos)
    assert found.between_runs
    a, b = (np.stack([scored(run).mean(axis=1) for run in runs]) for runs in (ones, twos))
    for i, task in enumerate(NAMES):
        wanted = stats.ttest_ind(a[:, i], b[:, i], equal_var=False).confidence_interval()
        own = found.returns[task]
        assert own.value == pytest.approx(a[:, i].mean() - b[:, i].mean())
        assert (own.low, own.high) == pytest.approx((wanted.low, wanted.high), rel=1e-3)
        assert found.scales["oracle"][task].value == pytest.approx(own.value * SLOPES[i])
    wanted = stats.ttest_ind((a * SLOPES).mean(axis=1), (b * SLOPES).mean(axis=1), equal_var=False)
    interval = wanted.confidence_interval()
    assert (found.means["oracle"].low, found.means["oracle"].high) == pytest.approx(tuple(interval), rel=1e-3)
    assert "over 4 and 3 runs" in found.note


def test_single_runs_are_paired_by_case():
    """The paired test of scipy; without pairing, the interval would be ten times as wide."""
    one, two = noisy(0, "one", 0.01), noisy(0, "other")
    found = compare([one], [two], replicates=20_000)
    for i, task in enumerate(NAMES):
        difference = scored(one)[i] - scored(two)[i]
        wanted = stats.ttest_1samp(difference, 0).confidence_interval()
        own = found.returns[task]
        assert own.value == pytest.approx(difference.mean())
        assert own.high - own.low == pytest.approx(wanted.high - wanted.low, rel=0.1)
        unpaired = stats.ttest_ind(scored(one)[i], scored(two)[i]).confidence_interval()
        assert own.high - own.low < (unpaired.high - unpaired.low) / 5
    assert "do not include how much training runs differ" in found.note


def test_one_run_against_several_is_paired_with_their_mean():
    found = compare([noisy(0, "one", 0.01)], [noisy(s, "other") for s in range(3)])
    assert found.runs == (1, 3)
    assert not found.between_runs
    again = compare([noisy(s, "other") for s in range(3)], [noisy(0, "one", 0.01)])
    for task in NAMES:
        assert again.returns[task].value == pytest.approx(-found.returns[task].value)


def test_an_agent_does_not_differ_from_itself():
    run = noisy(0, "same")
    found = compare([run], [run])
    assert found.names == ("same (1)", "same (2)")
    assert {estimate.value for estimate in found.returns.values()} == {0.0}
    assert {estimate.high for estimate in found.means.values()} == {0.0}


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(RecordError, match="only the same cases can be paired"):
        compare([made_up(rollouts=3)], [made_up(rollouts=4)])
    with pytest.raises(RecordError, match="cannot be compared: objective"):
        compare([made_up()], [made_up(objective="k-episode")])
    run = noisy(0, "one")
    foreign = dataclasses.replace(run, manifest={**run.manifest, "split": "train"})
    with pytest.raises(RecordError, match="cannot be compared: split"):
        compare([run], [foreign])
    fewer = dataclasses.replace(run, manifest={**run.manifest, "tasks": run.manifest["tasks"][1:]})
    with pytest.raises(RecordError, match=f"cannot be compared: only one of them has {run.manifest['tasks'][0]}\\.$"):
        compare([run], [fewer])


def test_the_command_and_the_function_say_the_same(tmp_path):
    folders = []
    for agent, seeds in (("one", 2), ("other", 2)):
        for seed in range(seeds):
            arguments = {"agent": agent, "train_seed": seed, "env_kwargs": {"tasks": NAMES}, "rollouts_per_task": 3}
            mtbench.evaluate("MTPOPGym-v0", "random", tmp_path / agent / str(seed), seed=seed + len(agent), **arguments)
        folders.append(tmp_path / agent)
    shown = CliRunner().invoke(command_line(), ["compare", *map(str, folders)])
    assert shown.exit_code == 0
    found = mtbench.compare(*folders)
    assert found == mtbench.compare([folders[0] / "0", folders[0] / "1"], folders[1])
    assert "### one minus other on MTPOPGym-v0" in shown.stdout
    mean = found.means["oracle"]
    assert f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]" in shown.stdout
    as_json = json.loads(CliRunner().invoke(command_line(), ["compare", *map(str, folders), "--json"]).stdout)
    assert as_json["means"]["oracle"]["value"] == pytest.approx(mean.value)
