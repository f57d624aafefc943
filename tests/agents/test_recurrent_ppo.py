"""The baseline: its inputs, its learning, its runs, and what it refuses."""

import json
import random
import threading

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from mtbench_agents.recurrent_ppo import train
from mtbench_agents.recurrent_ppo.config import PPOConfig, preset, read_config
from mtbench_agents.recurrent_ppo.entry import configured
from mtbench_agents.recurrent_ppo.envs import make_envs
from mtbench_agents.recurrent_ppo.inputs import PreviousInputs
from mtbench_agents.recurrent_ppo.policy import load_run, remember
from mtbench_agents.recurrent_ppo.train import Trainer
from mtbench_agents.training import agents, checkpoint
from mtbench_agents.training.settings import to_dict, updated
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

import mtbench
from mtbench import sandbox
from mtbench.errors import UsageError
from mtbench.policy import RewardedPolicy, load_policy
from mtbench.records import read_run
from mtbench.registration import TABLE
from mtbench.reports.curves import read_curve
from mtbench.wrappers import VectorRL2Inputs
from tests import toy

TINY = updated(
    preset("debug"),
    {"env.tasks": ["MineSweeperEasy"], "num_envs": 4, "horizon": 16, "batch_size": 32, "lstm": 8, "steps": 256}
    | {"round_updates": 1, "checkpoint_rounds": 1, "evaluate_rounds": 0},
)
IDS = {row.kwargs["suite"]: row.id for row in TABLE}  # one of each suite


def trained(folder, **changes):
    trainer = Trainer(updated(TINY, changes), folder)
    assert trainer.run()
    return trainer


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.policy.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- inputs ----


def test_inputs_are_those_of_the_rl2_wrapper(tmp_path):
    """Previous action and reward of the package's own wrapper; k-episode rewards are paid in every attempt."""
    kwargs = {"k": 2, "objective": "k-episode", "tasks": ["MineSweeperEasy", "RepeatFirstEasy"]}
    _, mine = make_envs(updated(TINY, {"env": kwargs, "num_envs": 3}), seed=5)
    theirs = VectorRL2Inputs(gym.make_vec("MTPOPGym-v0", 3, autoreset_mode="SameStep", **kwargs), "append")
    shown, (other, _) = mine.reset(), theirs.reset(seed=[5, 6, 7])
    rng = np.random.default_rng(0)
    begins = np.ones(3, dtype=bool)
    for _ in range(150):
        size = shown.shape[1]
        assert np.array_equal(shown[:, : size - 28], other[:, : size - 28])
        # The wrapper shows no action after the ignored step between two attempts.
        same = begins | (other[:, -1] == 0)
        assert np.array_equal(shown[same, size - 28 :], other[same, size - 28 : -1])
        actions = rng.integers(0, 4, size=3)
        shown, _, begins, _ = mine.step(actions)
        other = theirs.step(actions)[0]
    theirs.close()
    mine.close()


@pytest.mark.parametrize("env_id", IDS.values())
def test_the_policy_sees_in_evaluation_what_the_network_saw_in_training(env_id, monkeypatch):
    config = updated(TINY, {"env_id": env_id, "env": {"max_steps": 12}, "num_envs": 2, "normalize_rewards": False})
    envs, _ = make_envs(config, seed=3)
    inner = gym.make_vec(env_id, 2, autoreset_mode="SameStep", max_steps=12)
    inputs = PreviousInputs(inner.single_observation_space, inner.single_action_space)
    shown, (observation, _) = envs.reset(), inner.reset(seed=[3, 4])
    inputs.start(2)
    inner.single_action_space.seed(0)
    begins = np.ones(2, dtype=bool)
    for _ in range(30):
        inputs.restart(begins)
        mine = inputs.joined(observation)
        for name in shown if isinstance(shown, dict) else [None]:
            left, right = (one if name is None else one[name] for one in (shown, mine))
            assert np.array_equal(left, right), name
        actions = np.array([inner.single_action_space.sample() for _ in range(2)])
        inputs.took(actions)
        shown, *_ = envs.step(actions)
        observation, rewards, terminated, truncated, _ = inner.step(actions)
        inputs.received(rewards)
        begins = terminated | truncated
    envs.close()
    inner.close()


def test_a_terminal_observation_has_the_inputs_of_its_last_step():
    envs, _ = make_envs(updated(TINY, {"num_envs": 2, "normalize_rewards": False}), seed=0)
    envs.reset()
    done = [False]
    while not done[0]:
        shown, rewards, done, infos = envs.step(np.array([2, 2]))
    last = infos[0]["terminal_observation"]
    assert last[-28:-1].argmax() == 2
    assert last[-1] == rewards[0]
    assert not shown[0, -28:].any()
    envs.close()


def test_other_actions_are_refused():
    with pytest.raises(UsageError, match="Discrete actions and vectors"):
        PreviousInputs(spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 2]))


# ---- learning ----


def test_it_learns_to_walk(tmp_path, monkeypatch):
    """The distance covered pays: a random walk stays at 0 in the mean, a straight one reaches the goal."""
    toy.register(monkeypatch)
    changes = {"env_id": "Toy-v0", "env": {}, "steps": 15_000, "num_envs": 16, "horizon": 32, "batch_size": 128}
    changes |= {"round_updates": 10, "evaluate_rounds": 1, "evaluate_rollouts": 20}
    trained(tmp_path, **changes, rate=3e-3, discount=0.9, entropy=0.0)
    best = load_run(tmp_path / "best", toy_spaces())
    assert best.agent == f"{tmp_path.name}-best"
    played = [mtbench.evaluate("Toy-v0", policy, split="train", rollouts_per_task=20) for policy in (best, "random")]
    learnt, random_play = (run.episodes["success"].mean() for run in played)
    assert random_play < 0.4
    assert learnt > 0.9


def toy_spaces():
    env = gym.make("Toy-v0")
    return env.observation_space, env.action_space


@pytest.mark.parametrize("env_id", IDS.values())
def test_it_trains_on_every_suite(env_id, tmp_path):
    trained(tmp_path / "run", env_id=env_id, env={"max_steps": 20}, num_envs=2, steps=32)
    tasks = list(gym.make(env_id).unwrapped.tasks)[:1]
    run = mtbench.evaluate(
        env_id, str(tmp_path / "run"), split="train", rollouts_per_task=1, env_kwargs={"tasks": tasks, "max_steps": 20}
    )
    assert (run.manifest["agent"], run.manifest["step"], run.manifest["train_seed"]) == ("run", 32, 0)
    assert len(run.episodes)


def test_rewards_are_normalized_for_learning_alone(tmp_path):
    """The network sees the rewards that the environment paid; the log has returns on the game's own scale."""
    envs, counted = make_envs(updated(TINY, {"env.reward_scales": {"MineSweeperEasy": 100.0}}), seed=0)
    seen = envs.reset()
    learnt, paid = [], []
    for _ in range(60):
        seen, rewards, _, _ = envs.step(np.arange(4))
        learnt.append(rewards)
        paid.append(seen[:, -1])
    assert np.abs(paid).max() > 5
    assert np.abs(learnt).max() <= 10.0  # VecNormalize's own limit
    assert 0.2 < np.abs(np.array(counted.returns)).max() < 1
    envs.close()


# ---- runs ----


def test_a_run_is_decided_by_its_seed_and_leaves_global_generators_alone(tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    one = weights(trained(tmp_path / "one"))
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    torch.manual_seed(123)
    assert equal(one, weights(trained(tmp_path / "two")))
    assert not equal(one, weights(trained(tmp_path / "three", seed=1)))


def test_a_stopped_run_goes_on(tmp_path):
    config = updated(TINY, {"evaluate_rounds": 1, "evaluate_rollouts": 2})
    trainer = Trainer(config, tmp_path)
    lines = []

    def on_round(numbers):
        lines.append(numbers)
        if len(lines) == 2:
            trainer.stop.set()

    assert not trainer.run(on_round)
    kept = weights(trainer)
    again = Trainer(config, tmp_path)
    assert (again.updates, again.done, again.total) == (2, 128, 256)
    assert equal(kept, weights(again))
    moments = again.model.policy.optimizer.state_dict()["state"]
    assert moments
    assert all(
        torch.equal(moments[i]["exp_avg"], s["exp_avg"])
        for i, s in trainer.model.policy.optimizer.state_dict()["state"].items()
    )
    assert again.envs.ret_rms.var == trainer.envs.ret_rms.var
    assert again.run()
    log = again.log.read()
    assert [line["updates"] for line in log] == [1, 2, 3, 4]
    assert [line["steps"] for line in log] == [64, 128, 192, 256]
    assert [path.name for path in sorted((tmp_path / "evaluations").iterdir())] == [
        f"update-{i:09d}" for i in (1, 2, 3, 4)
    ]
    assert Trainer(config, tmp_path).run(), "a complete run has nothing to do"


@pytest.mark.parametrize(  # an array, and a Dict
    ("env_id", "task"), [("MTPOPGym-v0", "MineSweeperEasy"), ("MTBabyAI-v0", "BabyAI-GoToRedBallNoDists-v0")]
)
def test_it_learns_what_it_would_with_sb3s_own_network(env_id, task, tmp_path, monkeypatch):
    """In updates whose sequences begin with rollouts and in their middle."""
    changes = {"env_id": env_id, "env": {"tasks": [task], "max_steps": 20}, "horizon": 64, "batch_size": 128}
    changes |= {"steps": 512}
    trainer = Trainer(updated(TINY, changes), tmp_path / "ours")
    before = weights(trainer)
    assert trainer.run()
    ours = weights(trainer)
    monkeypatch.setattr(train, "Network", RecurrentActorCriticPolicy)
    theirs = weights(trained(tmp_path / "theirs", **changes))
    assert max(float((ours[name] - before[name]).abs().max()) for name in ours) > 1e-2
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=1e-4), name


def test_an_untrained_memory_keeps_things_for_as_many_steps_as_it_is_told():
    lstm = torch.nn.LSTM(3, 400)
    remember(torch.nn.Sequential(lstm), 100)
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().reshape(4, 400)
    kept = torch.sigmoid(bias[1])
    assert torch.allclose(torch.sigmoid(bias[0]), 1 - kept, atol=1e-6)
    steps = 1 / (1 - kept)  # in which a cell forgets all but 1/e
    assert 2 <= steps.min() < 5
    assert 90 < steps.max() <= 100
    assert 40 < steps.median() < 60


def test_the_rate_falls_to_zero(tmp_path):
    trainer = Trainer(TINY, tmp_path)
    rates = [trainer._rate]
    assert trainer.run(lambda numbers: rates.append(trainer._rate))
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4, 0.0])


def test_stopping_drops_an_update_that_has_not_been_learnt_from(tmp_path):
    trainer = Trainer(updated(TINY, {"horizon": 10_000}), tmp_path)
    threading.Timer(0.2, trainer.stop.set).start()
    before = weights(trainer)
    assert not trainer.run()
    assert trainer.updates == 0
    assert equal(before, weights(trainer))
    assert checkpoint.newest(tmp_path / "checkpoints", with_replay=False)[1]["steps"] == 0


def test_an_infinite_loss_ends_the_run(tmp_path, monkeypatch):
    trainer = Trainer(TINY, tmp_path)
    learn = trainer.model.learn

    def spoilt(*args, **kwargs):
        learn(*args, **kwargs)
        trainer.model.logger.name_to_value["train/loss"] = float("nan")

    monkeypatch.setattr(trainer.model, "learn", spoilt)
    with pytest.raises(UsageError, match="The loss is nan after 1 updates"):
        trainer.run()


def test_runs_are_reported_and_scored_like_the_reference_agents(tmp_path):
    trained(tmp_path / "run", evaluate_rounds=2, evaluate_rollouts=3)
    curve = read_curve(tmp_path / "run")
    assert (curve.updates, curve.steps, curve.scale) == ((2, 4), (128, 256), "oracle")
    validation = read_run(tmp_path / "run" / "evaluations" / "update-000000004")
    assert (validation.manifest["cases"], validation.manifest["split"]) == ("validation", "train")
    policy = load_policy(str(tmp_path / "run"))
    assert isinstance(policy, RewardedPolicy)
    run = mtbench.evaluate("MTPOPGym-v0", policy, rollouts_per_task=3, env_kwargs={"tasks": ["MineSweeperEasy"]})
    again = mtbench.evaluate("MTPOPGym-v0", policy, rollouts_per_task=3, env_kwargs={"tasks": ["MineSweeperEasy"]})
    assert run.episodes.equals(again.episodes)
    assert mtbench.score(run).table()


@pytest.mark.skipif(sandbox.version() < 1, reason="needs Linux with Landlock")
def test_it_plays_locked_in(tmp_path):
    trained(tmp_path)
    kwargs = {"rollouts_per_task": 2, "env_kwargs": {"tasks": ["MineSweeperEasy"]}}
    free, locked = (
        mtbench.evaluate("MTPOPGym-v0", str(tmp_path), isolated=isolated, **kwargs) for isolated in (False, True)
    )
    assert free.episodes.equals(locked.episodes)


# ---- what it refuses ----


def saved(folder, **changes):
    """A run with one checkpoint; `changes` of its state."""
    trainer = Trainer(TINY, folder)
    trainer.close()
    checkpoint.save(folder / "checkpoints", 1, {**trainer._acting(), "updates": 1, **changes}, {}, keep=1)
    return trainer


def test_a_strangers_run_that_does_not_fit_is_refused(tmp_path):
    trainer = saved(tmp_path)
    assert load_policy(str(tmp_path)).step == 0
    content = to_dict(TINY)
    for change, message in [
        ({"lstm": 9}, "should be of shape"),
        ({"lstm": 16_384}, "bytes of weights that its settings ask for"),
        ({"head": [65_536, 65_536]}, "bytes of weights that its settings ask for"),
        ({"env_id": "MTBabyAI-v0", "env": {}}, "was trained on other spaces"),
        ({"env_id": "os:system"}, "config.json"),
        ({"agent": "another"}, "There is no agent 'another'"),
        ({"agent": "transformer"}, "There is no setting"),
        ({"rate": "fast"}, "`rate` takes float"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(UsageError, match=message):
            load_policy(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(content))
    for state, message in [
        ({"model": {}}, "does not hold"),
        ({"model": 3}, "does not hold"),
        ({"model": [*trainer._acting()["model"].values()]}, "holds no model"),
        ({"steps": -1}, "how many steps"),
        ({"model": {k: v.double() for k, v in trainer._acting()["model"].items()}}, "should be torch.float32"),
    ]:
        checkpoint.save(tmp_path / "checkpoints", 1, {**trainer._acting(), "updates": 1, **state}, {}, keep=1)
        with pytest.raises(UsageError, match=message):
            load_policy(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 10_000}, "`batch_size` must be at most"),
        ({"learning.rate": 1}, "There is no setting 'learning"),
        ({"sync": True}, "There is no setting 'sync'"),
        ({"discount": 1.5}, "`discount` must be at least 0 and at most 1"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        configured("debug", None, "MTPOPGym-v0", changes)


def test_wrong_names_are_refused():
    with pytest.raises(
        UsageError, match=r"There is no agent 'recurent-ppo' in mtbench train\. Did you mean 'recurrent-ppo'"
    ):
        agents.entry("recurent-ppo")
    with pytest.raises(UsageError, match="There is no preset 'paper' in recurrent-ppo"):
        configured("paper", None, "MTPOPGym-v0", {})
    for name in agents.AGENTS:
        assert set(agents.entry(name).PRESETS) >= {"small", "debug"}


def test_a_folder_is_of_one_run(tmp_path):
    trained(tmp_path)
    with pytest.raises(UsageError, match="holds a run with other settings: lstm is 8, not 16"):
        Trainer(updated(TINY, {"lstm": 16}), tmp_path)
    assert read_config(tmp_path / "config.json") == TINY
    assert isinstance(read_config(tmp_path / "config.json"), PPOConfig)
