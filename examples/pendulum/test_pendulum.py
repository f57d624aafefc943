"""What a suite of one's own is tested by: mtbench's contract, its engine, and that it can be evaluated and scored."""

import json
import subprocess
import sys

import gymnasium as gym
import pytest

import mtbench
from examples.pendulum.oracle import action
from mtbench.evaluation import evaluate
from mtbench.scoring import score
from mtbench.testing import check_suite

ID = "MetaPendulum-v0"


@pytest.mark.slow
def test_the_contract_holds():
    check_suite(ID, "examples.pendulum")


def test_registering_again_does_nothing():
    mtbench.register(mtbench.Row(ID, "", dict(gym.spec(ID).kwargs)))
    with pytest.raises(ValueError, match="registered already"):
        mtbench.register(mtbench.Row(ID, "", {**gym.spec(ID).kwargs, "k": 5}))


def test_the_oracle_swings_it_up():
    env = gym.make(ID, tasks=["PositionOnlyPendulumEasy"], split="test").unwrapped
    env.reset(seed=0)
    over = False
    while not over:
        *_, terminated, truncated, info = env.step(action(env))
        over = terminated or truncated
    assert info["rollout"]["returns"].min() > 0.7  # a random torque earns 0.25


def test_evaluated_and_scored(tmp_path):
    runs = [evaluate(ID, policy, tmp_path / policy, rollouts_per_task=8) for policy in ("random", "oracle")]
    scores = score(runs)
    random, oracle = (agent.aggregates["oracle"]["mean"].value for agent in scores.agents)
    assert abs(random) < 0.25
    assert abs(oracle - 1) < 0.1


def test_the_command_line_imports_it_when_told_to():
    def info(*options):
        command = [sys.executable, "-m", "mtbench", "info", ID, "--json", *options]
        return subprocess.run(command, capture_output=True, text=True)

    assert json.loads(info("--suite", "examples.pendulum").stdout)["suite"] == "pendulum"
    assert "There is no environment 'MetaPendulum-v0'" in info().stderr
    assert "no module named 'examples.pendulun'" in info("--suite", "examples.pendulun").stderr
