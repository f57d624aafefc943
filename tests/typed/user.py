"""What a user writes, for type checkers to read: tests/test_types.py runs them strictly on it. Nothing executes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3 import PPO

import mtbench
from mtbench.adapters import SB3Policy, TorchRLPolicy
from mtbench.clients.sb3 import make_vec_env
from mtbench.errors import UsageError
from mtbench.policy import PrivilegedPolicy, RewardedPolicy, TrainedPolicy
from mtbench.rollout import MetaRollout
from mtbench.suite import Codec, Frame, Progress, Suite, Task, VariantRange, seed_splits
from mtbench.testing import check_suite
from mtbench.vector import make_vec
from mtbench.vector.engine import Array, Engine
from mtbench.wrappers import RL2Inputs, VectorRL2Inputs


def environments() -> None:
    """Single ones, batches and wrappers."""
    env: gym.Env[npt.NDArray[np.float32], int] = gym.make("mtbench:MTPOPGym-v0", tasks=["RepeatFirstEasy"])
    observation, info = env.reset(seed=0, options={"task": "RepeatFirstEasy"})
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert observation.dtype == np.float32
    over: bool = terminated or truncated
    print(float(reward), over, info["rollout"]["returns"])

    rollout = env.unwrapped
    assert isinstance(rollout, MetaRollout)
    task: str = rollout.task
    variant: int = rollout.variant
    suite: Suite = rollout.suite
    names: list[str] = rollout.tasks
    print(task, variant, suite.title, names, rollout.k, rollout.objective == "k-shot", rollout.max_steps)

    venv: gym.vector.VectorEnv[Any, Any, Any] = make_vec("MTPOPGym-v0", 8, num_workers=1)
    observations, _ = venv.reset(seed=0)
    print(observations.shape, venv.num_envs, VectorRL2Inputs(venv).autoreset_mode, RL2Inputs(env).observation_space)


class Memory:
    """A policy that wants its rewards, and says what it is."""

    agent: str = "memory"
    train_seed: int | None = 3
    step: int | None = None

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Forget."""
        self.rewards = np.zeros(num_envs)

    def act(self, observations: npt.NDArray[np.float32], reset_mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Always the first action."""
        self.rewards[reset_mask] = 0.0
        return np.zeros(len(observations), dtype=np.int64)

    def observe_rewards(self, rewards: npt.NDArray[np.float64]) -> None:
        """Add them up."""
        self.rewards += rewards


def last_seen(obs: npt.NDArray[np.float32]) -> int:
    """A function of one observation is a policy, too."""
    return int(np.argmax(obs[:26]))


def evaluation(folder: Path) -> None:
    """Runs, scores and comparisons."""
    policy: mtbench.Policy = Memory()
    rewarded: RewardedPolicy = Memory()
    trained: TrainedPolicy = Memory()
    print(rewarded, trained.agent, isinstance(mtbench.load_policy("oracle"), PrivilegedPolicy))

    run: mtbench.Run = mtbench.evaluate("MTPOPGym-v0", policy, rollouts_per_task=5, out=folder / "mine")
    other = mtbench.evaluate("MTPOPGym-v0", last_seen, env_kwargs={"k": 1}, audit=True)
    manifest: Mapping[str, Any] = mtbench.read_run(folder / "mine").manifest
    scores: mtbench.Scores = mtbench.score([run, other, folder])
    text: str = scores.table(format="md")
    frame = scores.to_dataframe()
    scores.save_figure(folder / "scores.png")
    for agent in scores.agents:
        print(agent.agent, agent.aggregates)
    print(manifest, text, frame, mtbench.compare(run, other).table())
    try:
        mtbench.evaluate("no such ID", "random")
    except UsageError as error:
        print(error)


def libraries(actor: Any) -> None:
    """Other libraries' environments and models."""
    venv = make_vec_env("MTPOPGym-v0", n_envs=4, seed=0)
    model = PPO("MlpPolicy", venv)
    policy: mtbench.Policy = SB3Policy(model)
    other: mtbench.Policy = TorchRLPolicy(actor)
    mtbench.evaluate("MTPOPGym-v0", policy)
    mtbench.evaluate("MTPOPGym-v0", other)


class Shown:
    """Observations are as the game makes them."""

    actions = range(2)

    def encode(self, observation: npt.NDArray[np.float32], progress: Progress) -> npt.NDArray[np.float32]:
        """Two numbers."""
        return np.append(observation, progress.reward).astype(np.float32)


class Coins(mtbench.Suite):
    """A suite of one's own."""

    name = "coins"
    title = "Coins"
    engine = "my_package:CoinEngine"
    distributions = ("my-package",)
    packages = ("my_package",)
    tasks = {"Coin": mtbench.Task("Coin", "my_package.games:Coin", "Coin", 10)}  # noqa: RUF012 (as users write it)
    splits = seed_splits(("Coin",))
    attempt_variants = "new"
    has_success = True
    frame_shape = (64, 64, 3)

    def observation_space(self, k: int) -> spaces.Box:
        """Two numbers."""
        return spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)

    def action_space(self) -> spaces.Discrete:
        """Heads or tails."""
        return spaces.Discrete(2)

    def codec(self, task: Task, base: gym.Env[Any, Any]) -> Codec:
        """One for all."""
        return Shown()

    def success(self, reward: float, info: dict[str, Any]) -> bool:
        """A guess that was right."""
        return reward > 0

    def render(self, base: gym.Env[Any, Any], task: Task, progress: Progress) -> Frame:
        """Nothing to see."""
        return np.zeros(self.frame_shape, dtype=np.uint8)


class HeldOut(Coins):
    """Whose splits are made when the suite is."""

    def __init__(self) -> None:
        self.splits = {"train": mtbench.Split("train", ("Coin",), VariantRange(0, 100), VariantRange(100, 200))}


class CoinEngine(Engine):
    """Its engine."""

    def __init__(self, suite: Suite, num_envs: int, k: int) -> None:
        self.num_actions = np.full(len(suite.tasks), 2, dtype=np.int64)
        self.success = np.zeros(num_envs, dtype=np.bool_)
        self.seen = np.zeros((num_envs, 2), dtype=np.float32)

    def start(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """Throw the coins."""
        self.seen[begin:end] = variants[begin:end, None] % 2

    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """Every attempt has one step."""
        reward[begin:end], terminated[begin:end], truncated[begin:end] = 0.0, True, False

    def observe(self, begin: int, end: int, progress: Array, out: Array) -> None:
        """As they lie."""
        out[begin:end] = self.seen[begin:end]


mtbench.register(mtbench.Row("Coins-v0", "guess", {"suite": "my_package:SUITE", "k": 2}))
check_suite("Coins-v0", module="my_package", pytest_options=["-k", "spaces"])
