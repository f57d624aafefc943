"""PPO in one file, as CleanRL writes it, on a batch of mtbench environments.

Run ``python examples/cleanrl_style.py --help``. Needs the extras ``popgym`` and ``agents``.

The policy is a small MLP without memory. It learns single tasks that need none, such as the default one. A policy for
hidden tasks needs memory; the reference agent has it (``agents/transformer``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import nn
from torch.distributions import Categorical

import mtbench  # noqa: F401 - registers the IDs


@dataclass
class Args:
    env_id: str = "MTPOPGym-v0"
    tasks: list[str] = field(default_factory=lambda: ["HigherLowerEasy"])
    seed: int = 1
    sync: bool = False
    """Step single environments one after the other (Gymnasium's SyncVectorEnv) and not in mtbench's compiled engine."""
    num_envs: int = 32
    num_steps: int = 64
    iterations: int = 20
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 2.5e-3
    gamma: float = 0.5
    """Low, as the default task pays each guess at once."""
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01


class Agent(nn.Module):
    def __init__(self, observations: int, actions: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(observations, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.actor, self.critic = nn.Linear(64, actions), nn.Linear(64, 1)

    def forward(self, obs: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        hidden = self.body(obs)
        return Categorical(logits=self.actor(hidden)), self.critic(hidden).squeeze(-1)


def make(args: Args) -> gym.vector.VectorEnv:
    # CleanRL's loops take the observation after a `done` as the next rollout's first: that is same-step autoreset.
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
    # Gymnasium's own vector environments take theirs in `vector_kwargs`.
    how = {"vectorization_mode": "sync", "vector_kwargs": mode} if args.sync else mode
    envs = gym.make_vec(args.env_id, num_envs=args.num_envs, tasks=args.tasks, **how)
    return gym.wrappers.vector.RecordEpisodeStatistics(envs)


def train(args: Args) -> list[dict[str, float]]:
    """Train; returns one row of results for each iteration in which rollouts ended."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # more only slow such a small network down
    envs = make(args)
    steps, n = args.num_steps, args.num_envs
    agent = Agent(int(np.prod(envs.single_observation_space.shape)), int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    obs_, actions = torch.zeros(steps, n, *envs.single_observation_space.shape), torch.zeros(steps, n, dtype=torch.long)
    logprobs, rewards, dones, values = torch.zeros(4, steps, n)
    obs = torch.as_tensor(envs.reset(seed=args.seed)[0])
    done = torch.zeros(n)
    log = []
    for iteration in range(args.iterations):
        ended: list[dict[str, np.ndarray]] = []
        for t in range(steps):
            obs_[t], dones[t] = obs, done
            with torch.no_grad():
                policy, values[t] = agent(obs)
                actions[t] = policy.sample()
                logprobs[t] = policy.log_prob(actions[t])
            seen, reward, terminated, truncated, infos = envs.step(actions[t].numpy())
            obs, rewards[t] = torch.as_tensor(seen), torch.as_tensor(reward)
            done = torch.as_tensor(terminated | truncated).float()
            if "episode" in infos:
                over = infos["_episode"]
                returns = infos["final_info"]["rollout"]["returns"][over]  # of each attempt
                ended.append({"paid": infos["episode"]["r"][over], "last": returns[:, -1], "first": returns[:, 0]})
        with torch.no_grad():
            following = agent(obs)[1]
        advantages = torch.zeros(steps, n)
        advantage = torch.zeros(n)
        for t in reversed(range(steps)):
            goes_on = 1.0 - (done if t == steps - 1 else dones[t + 1])
            delta = rewards[t] + args.gamma * following * goes_on - values[t]
            advantages[t] = advantage = delta + args.gamma * args.gae_lambda * goes_on * advantage
            following = values[t]
        targets = (advantages + values).flatten()
        batch_obs, batch_actions = obs_.flatten(0, 1), actions.flatten()
        old, gains = logprobs.flatten(), advantages.flatten()
        for _ in range(args.epochs):
            for rows in torch.randperm(steps * n).chunk(args.minibatches):
                policy, value = agent(batch_obs[rows])
                ratio = (policy.log_prob(batch_actions[rows]) - old[rows]).exp()
                gain = (gains[rows] - gains[rows].mean()) / (gains[rows].std() + 1e-8)
                policy_loss = -torch.min(gain * ratio, gain * ratio.clamp(1 - args.clip, 1 + args.clip)).mean()
                value_loss = 0.5 * (value - targets[rows]).pow(2).mean()
                loss = policy_loss + 0.5 * value_loss - args.entropy * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        if ended:
            means = {name: float(np.concatenate([row[name] for row in ended]).mean()) for name in ended[0]}
            log.append({"iteration": float(iteration), "loss": loss.item(), **means})
    envs.close()
    return log


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Args()
    for name, value in vars(default).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            parser.add_argument(option, action="store_true")
        elif isinstance(value, list):
            parser.add_argument(option, nargs="+", default=value)
        else:
            parser.add_argument(option, type=type(value), default=value)
    for row in train(Args(**vars(parser.parse_args(given)))):
        print(" ".join(f"{name}={value:.4g}" for name, value in row.items()))


if __name__ == "__main__":
    main()
