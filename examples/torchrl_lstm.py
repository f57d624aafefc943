"""PPO with an LSTM in TorchRL on a batch of mtbench environments, evaluated and scored.

Run ``python examples/torchrl_lstm.py --help``. Needs the extra ``popgym`` and ``pip install torchrl``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, TensorDictModule, TensorDictSequential
from torch.distributions import Categorical
from torchrl.envs import Compose, ExplorationType, GymWrapper, InitTracker, TransformedEnv, set_exploration_type
from torchrl.modules import LSTMModule, set_recurrent_mode
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

import mtbench
from mtbench.adapters import TorchRLPolicy


class Agent:
    """An LSTM with two heads; `policy` is what acts, `value` what PPO learns from besides."""

    def __init__(self, observations: int, actions: int, width: int = 64) -> None:
        self.memory = LSTMModule(input_size=observations, hidden_size=width, in_key="observation", out_key="embedding")
        self.logits = TensorDictModule(torch.nn.Linear(width, actions), ["embedding"], ["logits"])
        self.value = TensorDictModule(torch.nn.Linear(width, 1), ["embedding"], ["value"])
        draw = ProbabilisticTensorDictModule(
            ["logits"], ["action"], distribution_class=Categorical, return_log_prob=True, log_prob_key="log_prob"
        )
        self.policy = TensorDictSequential(self.memory, self.logits, draw)
        self.heads = TensorDictSequential(self.memory, self.logits, self.value)


def collect(env: TransformedEnv, agent: Agent, now: TensorDict, steps: int) -> tuple[TensorDict, TensorDict]:
    """`steps` steps in each environment, ``(envs, steps)``, and where they go on."""
    seen = []
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        for _ in range(steps):
            step, now = env.step_and_maybe_reset(agent.policy(now))
            seen.append(step)
    return torch.stack(seen, 1), now


def update(agent: Agent, optimizer: torch.optim.Optimizer, data: TensorDict, now: TensorDict, epochs: int) -> None:
    """PPO on whole sequences, each begun with the memory it was collected with."""
    reward, over = data["next", "reward"], data["next", "done"]
    with torch.no_grad():
        with set_recurrent_mode(True):
            values = agent.heads(data.clone())["value"]
        last = agent.heads(now.clone())["value"]
    # The values after an end are not looked at.
    following = torch.cat([values[:, 1:], last[:, None]], 1)
    # A low discount, as the default task pays each guess at once.
    gains, targets = vec_generalized_advantage_estimate(0.5, 0.95, values, following, reward, over, over)
    gains = ((gains - gains.mean()) / (gains.std() + 1e-8)).squeeze(-1)
    for _ in range(epochs):
        for rows in torch.randperm(len(data)).chunk(4):
            batch, gain = data[rows], gains[rows]
            with set_recurrent_mode(True):
                out = agent.heads(batch.clone())
            chosen = Categorical(logits=out["logits"])
            ratio = (chosen.log_prob(batch["action"]) - batch["log_prob"]).exp()
            policy_loss = -torch.min(gain * ratio, gain * ratio.clamp(0.8, 1.2)).mean()
            value_loss = (out["value"] - targets[rows]).pow(2).mean()
            loss = policy_loss + 0.5 * value_loss - 0.01 * chosen.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(agent.heads.parameters(), 0.5)
            optimizer.step()


def train(tasks: list[str], iterations: int, num_envs: int = 32, seed: int = 1) -> TensorDictSequential:
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # more only slow such a small network down
    # TorchRL takes batches whose rollouts begin again in the same step.
    venv = gym.make_vec("MTPOPGym-v0", num_envs=num_envs, tasks=tasks, autoreset_mode="SameStep")
    agent = Agent(venv.single_observation_space.shape[0], int(venv.single_action_space.n))
    env = GymWrapper(venv, categorical_action_encoding=True)
    env = TransformedEnv(env, Compose(InitTracker(), agent.memory.make_tensordict_primer()))
    env.set_seed(seed)
    optimizer = torch.optim.Adam(agent.heads.parameters(), lr=2.5e-3)
    now = env.reset()
    for iteration in range(iterations):
        data, now = collect(env, agent, now, 64)
        update(agent, optimizer, data, now, epochs=4)
        print(f"iteration={iteration} reward={data['next', 'reward'].mean().item():.4f}")
    env.close()
    return agent.policy


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["HigherLowerEasy"])
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--rollouts", type=int, default=20, help="for each task, when the policy is evaluated")
    parser.add_argument("--out", type=Path, default=Path("runs/torchrl"))
    args = parser.parse_args(given)
    policy = TorchRLPolicy(train(args.tasks, args.iterations), deterministic=False)
    run = mtbench.evaluate(
        "MTPOPGym-v0",
        policy,
        args.out,
        split="train",
        rollouts_per_task=args.rollouts,
        env_kwargs={"tasks": args.tasks},
        agent="TorchRL PPO",
    )
    print(mtbench.score(run).table())


if __name__ == "__main__":
    main()
