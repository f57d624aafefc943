"""Settings are refused in one clear line, wherever they come from; suites bring their own."""

import dataclasses
import json
import warnings

import gymnasium as gym
import pytest
from mtbench_agents.training import cli as agent_cli
from mtbench_agents.training.settings import to_dict, updated
from mtbench_agents.transformer.config import (
    PRESETS,
    CollectConfig,
    LearningConfig,
    ModelConfig,
    TrainConfig,
    from_dict,
    preset,
    read_config,
)
from mtbench_agents.transformer.suites import GENERAL, REWARDS, SMALL

import mtbench
from mtbench.errors import UsageError
from mtbench.options import parsed_options
from mtbench.registration import TABLE, Row
from mtbench.scoring.references import load_references

WRONG = [
    ("model.heads", 3, "`model.width` must be a multiple of `model.heads`, got 256 and 3"),
    ("model.critics", 0, "`model.critics` must be at least 1"),
    ("model.head", [64], r"`model.head` takes 2 values, got \[64\]"),
    ("model.head", [64, 0], "`model.head` must be at least 1"),
    ("model.encoder", [64.5], r"`model.encoder` takes int, got 64\.5"),
    ("learning.rate", -1, "`learning.rate` must be at least 0"),
    ("learning.rate", "fast", "`learning.rate` takes float, got 'fast'"),
    ("learning.clip", 0, "`learning.clip` must be at least"),
    ("learning.discounts", ["a"], "`learning.discounts` takes float, got 'a'"),
    ("learning.discounts", [], "`learning.discounts` must have at least 1 entries"),
    ("learning.discounts", [0.5, 1], r"`learning.discounts` must lie in \[0, 1\), got 1"),
    ("learning.actor", "greedy", "There is no learning.actor 'greedy'"),
    ("collect.epsilon_late", [1], "`collect.epsilon_late` takes 2 values"),
    ("collect.epsilon_late", 1, "`collect.epsilon_late` takes tuple, got 1"),
    ("collect.steps_per_update", -0.5, "`collect.steps_per_update` must be at least 0"),
    ("checkpoint_rounds", 0, "`checkpoint_rounds` must be at least 1"),
    ("keep_checkpoints", 0, "`keep_checkpoints` must be at least 1"),
    ("evaluate_rounds", -1, "`evaluate_rounds` must be at least 0"),
]
PARTS = {"model": ModelConfig, "learning": LearningConfig, "collect": CollectConfig}


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_wrong_setting_is_refused_wherever_it_comes_from(name, value, message, tmp_path):
    part, dot, setting = name.rpartition(".")
    content = to_dict(TrainConfig())
    (content[part] if dot else content)[setting] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    ways = {
        "command line": lambda: updated(TrainConfig(), parsed_options([f"{name}={json.dumps(value)}"])),
        "Python": lambda: PARTS.get(part, TrainConfig)(**{setting: value}),
        "file": lambda: read_config(tmp_path / "config.json"),
    }
    for way in ways.values():
        with pytest.raises(UsageError, match=message) as refusal:
            way()
        assert "\n" not in str(refusal.value)


def test_a_baseline_is_for_the_independent_critic():
    LearningConfig(baseline=1.0, actor="dependent")
    with pytest.raises(UsageError, match=r"`learning\.baseline` is for the independent critic"):
        LearningConfig(baseline=1.0, critic="dependent")


@pytest.mark.parametrize("changes", [{"actor": "dependent", "exact_actions": 4}, {"exact_actions": 0}])
def test_own_actions_are_imitated_where_they_are_judged(changes):
    with pytest.raises(UsageError, match=r"`learning\.own_actions` is for the independent actor"):
        LearningConfig(own_actions=1.0, **changes)


def test_the_command_line_says_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"`learning\.rate` must be at least 0 and at most 10, got -1"):
        agent_cli.train("MTPOPGym-v0", ["learning.rate=-1"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", [TrainConfig, ModelConfig, LearningConfig, CollectConfig])
def test_every_number_has_bounds(config):
    for field in dataclasses.fields(config):
        if "int" in str(field.type) or "float" in str(field.type):
            bounds = field.metadata["bounds"]
            for wrong in (bounds.least - 1 - abs(bounds.least), bounds.most * 2 + 1):
                value = (wrong, wrong) if "tuple" in str(field.type) else wrong
                with pytest.raises(UsageError):
                    config(**{field.name: value})


@pytest.mark.parametrize(("name", "value"), [("seed.x", 3), ("model", 3), ("env", 3), ("model.width.x", 1)])
def test_settings_without_parts_have_none(name, value):
    with pytest.raises(UsageError, match=name.partition(".")[0]):
        updated(TrainConfig(), {name: value})
    with pytest.raises(UsageError, match="`env` takes dict"):
        updated(TrainConfig(), {"env": 3, "env.k": 1})


def test_lists_become_tuples_and_whole_numbers_floats():
    config = LearningConfig(discounts=[0, 0.5], rate=1)
    assert config.discounts == (0.0, 0.5)
    assert type(config.discounts[0]) is type(config.rate) is float
    assert config == LearningConfig(discounts=(0.0, 0.5), rate=1.0)


def test_a_config_of_an_earlier_version_compares_equal():
    content = to_dict(preset("small"))
    content["collect"]["replay_on_disk"] = content["model"]["recency"] = content["model"]["relative"] = False
    content["learning"]["baseline"] = False
    assert from_dict(content) == preset("small")
    content["model"]["recency"] = True  # such an agent would act otherwise today
    with pytest.raises(UsageError, match=r"no setting 'model\.recency'"):
        from_dict(content)
    with pytest.raises(UsageError, match=r"no setting 'collect\.replay_on_disk'"):
        updated(TrainConfig(), {"collect.replay_on_disk": True})


# ---- suites ----


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_popgyms_but_for_what_small_has_in_its_table(name):
    table = SMALL["popgym"] if name == "small" else {}
    assert preset(name) == preset(name, "MTPOPGym-v0") == updated(PRESETS[name], table)
    assert (preset(name) == PRESETS[name]) == (name != "small")


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_good_returns_fit_between_the_bins(name, row):
    config = preset(name, row.id)
    assert config.env_id == row.id
    factors = row.kwargs.get("reward_scales", {})
    scales = load_references(row.suite).scales.values()
    best = max(anchor.value * factors.get(task, 1.0) for scale in scales for task, anchor in scale.high.items())
    if row.kwargs["suite"].startswith("metaworld"):
        best = 5000.0 * row.k  # the references are success rates; a solved task returns about this
    if row.kwargs.get("clip_rewards"):
        best = 1 / (1 - config.learning.discounts[-1])  # a reward of 1 for ever; the references are not clipped
    assert best * config.learning.reward_multiplier <= config.model.bin_limit


def test_the_suite_gives_way_to_the_user_and_the_values_are_recorded():
    config = updated(preset("small", "ML45-v0"), {"learning.reward_multiplier": 3.0})
    assert config.learning.reward_multiplier == 3.0
    assert to_dict(preset("small", "ML45-v0"))["learning"]["reward_multiplier"] == 1.0
    assert preset("paper", "ML45-v0").model.width == 320
    assert preset("small", "ML45-v0").model.width == preset("small").model.width
    assert preset("small", "MTAtari-Clipped-v0").learning.reward_multiplier == 10.0


def test_every_suite_of_this_package_is_known():
    assert {row.kwargs["suite"] for row in TABLE} - {"popgym"} <= set(REWARDS)


def test_a_suite_from_outside_falls_back_and_says_so(monkeypatch):
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    monkeypatch.setattr(gym, "registry", gym.envs.registration.registry)
    mtbench.register(Row("Outside-v0", "for tests", {"suite": "tests.toy:SUITE", "k": 2}))
    with pytest.warns(UserWarning, match=r"reward scale of Outside-v0 is unknown.*learning\.reward_multiplier=10"):
        config = preset("small", "Outside-v0")
    assert config == updated(PRESETS["small"], {"env_id": "Outside-v0", **GENERAL})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preset("small", "ML45-v0")
