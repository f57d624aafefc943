"""A training run that a stranger sends: nothing in its folder is executed, and it allocates no more than it holds."""

import hashlib
import json
import os
import sys
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from mtbench_agents.training import checkpoint
from mtbench_agents.training import cli as agent_cli
from mtbench_agents.training.settings import to_dict, updated
from mtbench_agents.transformer.cli import bench_agent
from mtbench_agents.transformer.config import preset, read_config
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.policy import load_run

from mtbench import cli
from mtbench.errors import UsageError
from mtbench.evaluation import evaluate
from mtbench.policy import fingerprint, load_policy
from mtbench.records import write_json

CONFIG = updated(
    preset("debug"),
    {"env.tasks": ["MineSweeperEasy"], "model.encoder": [8], "model.width": 8, "model.feedforward": 8}
    | {"model.head": [8, 8], "model.heads": 2, "model.bins": 8, "model.context": 16},
)


@pytest.fixture(scope="module")
def spaces():
    env = gym.make(CONFIG.env_id, **CONFIG.env)
    return env.observation_space, env.action_space


def write(folder, spaces, /, config=CONFIG, update=1, **changes):
    """A training run with one checkpoint, made up without training; returns the checkpoint's folder."""
    model = AgentModel(CONFIG.model, CONFIG.learning, *spaces)
    write_json(folder / "config.json", to_dict(config))
    state = {"model": model.state_dict(), "steps": 7, "updates": 1, "spaces": str(spaces), **changes}
    return checkpoint.save(folder / "checkpoints", update, state, {"x": np.zeros(1)}, keep=9)


@pytest.fixture
def payload(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported, where imports look for it."""
    mark = tmp_path / "imported"
    (tmp_path / "payload.py").write_text(f"open({str(mark)!r}, 'w').close()\nfrom tests.toy import SUITE\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    assert not mark.exists()
    assert "payload" not in sys.modules


@pytest.fixture
def unbuilt(monkeypatch):
    """No network is built but on the meta device, which allocates nothing."""
    monkeypatch.setattr(AgentModel, "seeded", lambda *_: pytest.fail("a network was allocated"))


def test_the_run_they_are_made_of_loads(tmp_path, spaces):
    path = write(tmp_path, spaces)
    policy = load_run(tmp_path)
    assert (policy.train_seed, policy.step) == (0, 7)
    assert policy.digest == (path / "digest").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_id": "payload:MTPOPGym-v0"}, "There is no environment 'payload:MTPOPGym-v0'"),
        ({"env_id": "mtbench:payload:MTPOPGym-v0"}, "There is no environment"),
        ({"env_id": "CartPole-v1"}, "There is no environment 'CartPole-v1'"),
        ({"env_id": "x" * 100_000}, "env_id should be a registered ID"),
        ({"env": {"suite": "payload:SUITE"}}, "no environment argument 'suite'"),
        ({"env": {"additional_wrappers": []}}, "no environment argument 'additional_wrappers'"),
        ({"env": {"max_episode_steps": 3}}, "no environment argument 'max_episode_steps'"),
        ({"env": {"render_mode": "rgb_array"}}, "no environment argument 'render_mode'"),
        ({"env": {"k": 10**9}}, "argument k should be an integer from 1 to 1000"),
        ({"env": {"k": True}}, "argument k should be"),
        ({"env": {"tasks": "MineSweeperEasy"}}, "argument tasks should be names"),
        ({"env": {"expose_task_label": 1}}, "argument expose_task_label should be true or false"),
        ({"env": {"tasks": ["payload"]}}, "There is no task 'payload'"),
        ({"env": ["k"]}, "`env` takes dict"),
        ({"env_id": 5}, "`env_id` takes str, got 5"),
        ({"seed": -1}, "`seed` must be at least 0"),
        ({"seed": 1.5}, "`seed` takes int"),
        ({"sync": "yes"}, "`sync` takes bool"),
        ({"loggers": [1]}, "`loggers` takes str, got 1"),
        ({"model": [1]}, "`model` takes settings by name"),
        ({"model": {"width": 10**9}}, r"`model\.width` must be .* at most 16384, got 1000000000"),
        ({"model": {"width": "8"}}, r"`model\.width` takes int, got '8'"),
        ({"model": {"width": 8.0}}, r"`model\.width` takes int, got 8\.0"),
        ({"model": {"layers": 10**9}}, r"`model\.layers` must be"),
        ({"model": {"context": 10**9}}, r"`model\.context` must be"),
        ({"model": {"context": 65_536, "layers": 256, "width": 1024}}, "ask for a memory of"),
        ({"model": {"encoder": ["8"]}}, r"`model\.encoder` takes int, got '8'"),
        ({"model": {"encoder": 8}}, r"`model\.encoder` takes tuple, got 8"),
        ({"model": {"encoder": [8] * 1000}}, r"`model\.encoder` must have at most 64 entries"),
        ({"model": {"head": [8, 8, 8]}}, r"`model\.head` takes 2 values"),
        ({"model": {"heads": 0}}, r"`model\.heads` must be at least 1"),
        ({"model": {"heads": 3}}, "must be a multiple"),
        ({"model": {"dropout": 2.0}}, r"`model\.dropout` must be"),
        ({"model": {"bin_limit": -1.0}}, r"`model\.bin_limit` must be"),
        ({"model": {"hl_gauss": "wide"}}, r"`model\.hl_gauss` takes float"),
        ({"learning": {"actor": ["independent"]}}, r"There is no learning\.actor"),
        ({"learning": {"discounts": [0.5] * 1000}}, r"`learning\.discounts` must have at most 64 entries"),
        ({"learning": {"rate": 10**400}}, r"`learning\.rate` takes a finite number"),
        ({"payload": 1}, "no setting 'payload'"),
        ({"model": {"width": 16}}, "does not fit the settings in config.json"),
        ({"model": {"layers": 2}}, "does not fit the settings in config.json.*is absent"),
    ],
)
def test_settings_are_checked_before_anything_is_made(
    tmp_path, spaces, payload, unbuilt, monkeypatch, changes, message
):
    write(tmp_path / "run", spaces)
    content = to_dict(CONFIG)
    for key, value in changes.items():
        content[key] = {**content[key], **value} if key == "model" and isinstance(value, dict) else value
    (tmp_path / "run" / "config.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=message) as refusal:
        load_policy(str(tmp_path / "run"))
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "A config is a JSON object"),
        ('{"seed": 0, "seed": 1}', "'seed' occurs twice"),
        ('{"learning": {"rate": NaN}}', "NaN is no JSON number"),
        ('{"env": ' + '{"k": ' * 99 + "1" + "}" * 99 + "}", "nested too deeply"),
        ("{", "not valid JSON"),
        (" " * 2**21, "too large"),
    ],
)
def test_settings_are_strict_json(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        load_run(tmp_path)


def test_settings_that_are_a_link_are_refused(tmp_path, spaces):
    write(tmp_path / "run", spaces)
    (tmp_path / "run" / "config.json").rename(tmp_path / "elsewhere")
    (tmp_path / "run" / "config.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="symbolic link"):
        load_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": 3}, "holds no model"),
        ({"model": {"a": 1}}, "holds no model"),
        ({"model": {}}, "does not fit the settings"),
        ({"steps": "many"}, "should say how many steps"),
        ({"steps": -1}, "should say how many steps"),
        ({"spaces": "Box"}, "was trained on other spaces"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, spaces, unbuilt, changes, message):
    write(tmp_path, spaces, **changes)
    with pytest.raises(UsageError, match=message):
        load_run(tmp_path)


def test_weights_of_another_type_are_refused(tmp_path, spaces, unbuilt):
    model = AgentModel(CONFIG.model, CONFIG.learning, *spaces).state_dict()
    write(tmp_path, spaces, model={name: value.double() for name, value in model.items()})
    with pytest.raises(UsageError, match=r"should be torch\.float32, it is torch\.float64"):
        load_run(tmp_path)


def test_weights_that_claim_more_than_the_file_holds_are_refused(tmp_path, spaces, unbuilt):
    """One stored number can pose as a matrix of any size."""
    config = updated(CONFIG, {"model.width": 4096, "model.feedforward": 4096})
    with torch.device("meta"):
        shapes = AgentModel(config.model, config.learning, *spaces).state_dict()
    vast = {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in shapes.items()}
    path = write(tmp_path, spaces, config, model=vast)
    assert (path / "state.pt").stat().st_size < 100_000
    with pytest.raises(UsageError, match=r"does not hold the [\d,]+ bytes of weights that it claims"):
        load_run(tmp_path)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_is_not_executed(tmp_path, spaces):
    write(tmp_path / "run", spaces, extra=Evil(tmp_path / "mark"))
    with (
        pytest.warns(UserWarning, match="is no state of a training run"),
        pytest.raises(UsageError, match="is damaged"),
    ):
        load_run(tmp_path / "run")
    assert not (tmp_path / "mark").exists()


def test_a_compressed_checkpoint_is_refused(tmp_path, spaces):
    path = write(tmp_path, spaces)
    with zipfile.ZipFile(path / "state.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path / "state.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        archive.writestr("archive/data/999", bytes(10_000_000))
    (path / "digest").write_text(hashlib.sha256((path / "state.pt").read_bytes()).hexdigest())
    with pytest.raises(UsageError, match="unpacks to more than it takes on disk"):
        load_run(tmp_path)


@pytest.mark.parametrize("name", ["state.pt", "digest", "replay.npz", "."])
def test_a_checkpoint_of_links_is_refused(tmp_path, spaces, name):
    path = write(tmp_path / "run", spaces)
    link = path if name == "." else path / name
    link.rename(tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="symbolic link"):
        load_run(tmp_path / "run")


def test_the_fingerprint_is_of_the_checkpoint_that_plays(tmp_path, spaces):
    older, newer = write(tmp_path, spaces, update=1), write(tmp_path, spaces, update=2, steps=8)
    (newer / "state.pt").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="Falling back"):
        policy = load_policy(str(tmp_path))
    assert policy.step == 7
    assert fingerprint(str(tmp_path), policy) == (older / "digest").read_text()
    with pytest.warns(UserWarning, match="Falling back"):
        run = evaluate("MTPOPGym-v0", str(tmp_path), tmp_path / "out", rollouts_per_task=1, env_kwargs=CONFIG.env)
    assert run.manifest["policy_sha256"] == (older / "digest").read_text()


def test_a_run_on_an_environment_of_ones_own_loads_with_its_spaces(tmp_path, spaces):
    write(tmp_path, spaces, updated(CONFIG, {"env_id": "Mine-v0"}))
    with pytest.raises(UsageError, match="There is no environment 'Mine-v0'"):
        load_run(tmp_path)
    assert load_run(tmp_path, spaces).step == 7


def test_an_agent_of_another_suite_is_refused_with_both_spaces(tmp_path, spaces):
    write(tmp_path / "agent", spaces)
    policy = load_run(tmp_path / "agent")
    unbounded = gym.spaces.Box(-np.inf, np.inf, spaces[0].shape, np.float32)
    policy.start(1, 0, unbounded, spaces[1])  # bounds make no other network
    with pytest.raises(UsageError, match=r"agent was trained on other spaces.* Discrete\(27\), not .* Discrete\(7\)"):
        policy.start(1, 0, spaces[0], gym.spaces.Discrete(7))
    with pytest.raises(UsageError, match=r"not Dict\(x: Box\(30,\)"):
        policy.start(1, 0, gym.spaces.Dict({"x": spaces[0]}), spaces[1])


# ---- the command line ----


def test_a_config_file_brings_no_suite_of_its_own(tmp_path, payload):
    write_json(tmp_path / "theirs.json", {**to_dict(CONFIG), "env": {"suite": "payload:SUITE"}})
    with pytest.raises(UsageError, match="no environment argument 'suite'"):
        agent_cli.train("MTPOPGym-v0", config_file=tmp_path / "theirs.json", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert read_config(tmp_path / "theirs.json").env == {"suite": "payload:SUITE"}


@pytest.mark.parametrize(
    "command",
    [
        lambda name, out: cli.info(name),
        lambda name, out: cli.play(name),
        lambda name, out: cli.evaluate(name, out),
        lambda name, out: agent_cli.train(name, out=out),
        lambda name, out: bench_agent(name),
    ],
    ids=["info", "play", "evaluate", "train", "bench agent"],
)
def test_an_id_that_imports_is_refused_by_every_command(tmp_path, payload, command):
    with pytest.raises(UsageError, match="There is no environment 'payload:MTPOPGym-v0'"):
        command("payload:MTPOPGym-v0", tmp_path / "out")


def test_what_reaches_gymnasium_is_the_registered_id(monkeypatch):
    asked = []
    made = gym.make
    monkeypatch.setattr(gym, "make", lambda name, **kwargs: [asked.append(name), made(name, **kwargs)][1])
    cli._make("mtbench:MTPOPGym-v0", []).close()
    assert asked == ["MTPOPGym-v0"]
