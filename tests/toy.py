"""A suite small enough to reason about, with what POPGym lacks: successes, a kept variant, real-valued actions."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import mtbench
from mtbench.registration import Row
from mtbench.suite import Split, Suite, Task, VariantRange


class Walk(gym.Env):
    """Walk from 0 to the variant's goal (1 to 5) within 8 steps of at most 1; reward is the distance covered."""

    action_space = spaces.Box(-1.0, 1.0, (1,), dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal, self.place, self.steps = 1 + seed % 5, 0.0, 0
        return np.array([0.0], dtype=np.float32), {"goal": self.goal}

    def step(self, action):
        self.place += float(action[0])
        self.steps += 1
        there = self.place >= self.goal
        obs = np.array([self.place], dtype=np.float32)
        return obs, float(action[0]), there, self.steps == 8 and not there, {"there": there}


class Codec:
    actions = None

    def encode(self, observation: Any, progress: Any) -> Any:
        return np.array([observation[0], progress.attempt_start, progress.reward], dtype=np.float32)


class Toy(Suite):
    name: ClassVar[str] = "toy"
    title: ClassVar[str] = "Toy"
    distributions: ClassVar[tuple[str, ...]] = ()
    tasks: ClassVar[dict[str, Task]] = {name: Task(name, "tests.toy:Walk", "Walk", 8) for name in ("near", "far")}
    splits: ClassVar[dict[str, Split]] = {
        "train": Split("train", ("near",), VariantRange(0, 50), VariantRange(50, 60), (), VariantRange(0, 50)),
        "test": Split("test", ("far",), VariantRange(60, 70), VariantRange(70, 80)),
    }
    attempt_variants = "same"
    has_success = True
    frame_shape = (8, 8, 3)

    def observation_space(self, k):
        return spaces.Box(-10.0, 10.0, (3,), dtype=np.float32)

    def action_space(self):
        return spaces.Box(-1.0, 1.0, (1,), dtype=np.float32)

    def codec(self, task, base):
        return Codec()

    def success(self, reward, info):
        return info["there"]

    def render(self, base, task, progress):
        return np.full(self.frame_shape, base.steps, dtype=np.uint8)


class SingleAttempt(Toy):
    single_attempt = True


SUITE = Toy()


def register(monkeypatch):
    """Register ``Toy-v0`` until the test is over."""
    mtbench.register(Row("Toy-v0", "for tests", {"suite": "tests.toy:SUITE", "k": 2}))
    monkeypatch.setitem(gym.registry, "Toy-v0", gym.registry.pop("Toy-v0"))
