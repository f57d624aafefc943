"""The environments that the baseline learns in."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from mtbench.clients.sb3 import StepReturn, make_vec_env

from .config import PPOConfig
from .inputs import Array, PreviousInputs


class InputsVecEnv(VecEnvWrapper):
    """Shows the previous action and reward beside each observation, and remembers how rollouts ended.

    Attributes:
        returns: Of the latest rollouts: each attempt's return.
    """

    def __init__(self, venv: VecEnv) -> None:
        self._inputs = PreviousInputs(venv.observation_space, venv.action_space)
        super().__init__(venv, observation_space=self._inputs.space)
        self.returns: deque[Array] = deque(maxlen=200)

    def reset(self) -> VecEnvObs:
        """Begin everywhere."""
        self._inputs.start(self.num_envs)
        return self._inputs.joined(self.venv.reset())  # type: ignore[no-any-return]

    def step_async(self, actions: Array) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._inputs.took(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> StepReturn:
        """Play one step."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._inputs.received(rewards)
        for i in np.flatnonzero(dones).tolist():
            self.returns.append(infos[i]["rollout"]["returns"])
            infos[i]["terminal_observation"] = self._inputs.joined_row(infos[i]["terminal_observation"], i)
        self._inputs.restart(dones)
        return self._inputs.joined(observations), rewards, dones, infos


def make_envs(config: PPOConfig, seed: int) -> tuple[VecEnv, InputsVecEnv]:
    """The environments of a run, and the wrapper inside them that counts returns.

    Args:
        config: All settings.
        seed: Of the first environment; the others follow.
    """
    counted = InputsVecEnv(make_vec_env(config.env_id, config.num_envs, seed, **config.env))
    if not config.normalize_rewards:
        return counted, counted
    return VecNormalize(counted, norm_obs=False, norm_reward=True, gamma=config.discount), counted


def reward_statistics(envs: VecEnv) -> dict[str, Any]:
    """What a checkpoint keeps of the normalization of rewards."""
    if not isinstance(envs, VecNormalize):
        return {}
    running: Any = envs.ret_rms
    return {"mean": float(running.mean), "var": float(running.var), "count": float(running.count)}


def set_reward_statistics(envs: VecEnv, statistics: dict[str, Any]) -> None:
    """Go on with a checkpoint's."""
    if isinstance(envs, VecNormalize):
        running: Any = envs.ret_rms
        running.mean, running.var = np.float64(statistics["mean"]), np.float64(statistics["var"])
        running.count = statistics["count"]
