"""Optional wrappers for agents that want their inputs in another shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from mtbench.errors import UsageError, unknown_name_error
from mtbench.rollout import MetaRollout
from mtbench.spaces import Vector

if TYPE_CHECKING:
    from mtbench.vector.rollout import VectorMetaRollout

Array = npt.NDArray[Any]
Layout = Literal["dict", "append"]


def encoded_actions(space: gym.Space[Any], actions: Any) -> Vector:
    """``(N, size)`` float32: a batch of actions as an agent sees its previous ones.

    Args:
        space: Of one action. Discrete ones are one-hot, vectors are as they are.
        actions: N of them.
    """
    if not isinstance(space, spaces.Discrete):
        return np.array(actions, dtype=np.float32)
    encoded = np.zeros((len(actions), int(space.n)), dtype=np.float32)
    encoded[np.arange(len(actions)), np.asarray(actions) - int(space.start)] = 1.0
    return encoded


class _Inputs:
    """How observations and the three RL^2 inputs are put together, alone or in batches.

    Args:
        observation: The space of one observation.
        action: The space of one action.
        layout: As :class:`RL2Inputs` takes it.

    Attributes:
        space: The space of one observation with its inputs.
        size: How many numbers an encoded action has.
    """

    def __init__(self, observation: gym.Space[Any], action: gym.Space[Any], layout: str) -> None:
        if layout not in ("dict", "append"):
            raise unknown_name_error("layout", layout, ["dict", "append"], "RL2Inputs")
        self._append, self._action = layout == "append", action
        low: Vector
        high: Vector
        if isinstance(action, spaces.Discrete):
            self.size = int(action.n)
            low, high = np.zeros(self.size, np.float32), np.ones(self.size, np.float32)
        elif isinstance(action, spaces.Box) and len(action.shape) == 1:
            self.size = action.shape[0]
            low, high = np.minimum(action.low, 0.0), np.maximum(action.high, 0.0)
        else:
            raise UsageError(f"RL2Inputs has no encoding for the action space {action}.")
        parts = {
            "previous_action": spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32),
            "previous_reward": spaces.Box(-np.inf, np.inf, (1,), dtype=np.float32),
            "attempt_start": spaces.Box(0.0, 1.0, (1,), dtype=np.float32),
        }
        self.space: gym.Space[Any]
        if not self._append:
            self.space = spaces.Dict({"observation": observation, **parts})
            return
        vector = isinstance(observation, spaces.Box) and observation.dtype == np.float32 and len(observation.shape) == 1
        if not vector:
            raise UsageError(f'layout="append" needs a float32 vector observation, not {observation}; use "dict".')
        boxes = [observation, *parts.values()]
        low, high = (np.concatenate([getattr(box, bound) for box in boxes]) for bound in ("low", "high"))
        self.space = spaces.Box(low, high, dtype=np.float32)

    def encode(self, actions: Any) -> Vector:
        """``(N, size)``: a batch of actions as the next observations show them."""
        return encoded_actions(self._action, actions)

    def join(self, observation: Any, action: Vector, reward: Vector, start: Vector) -> Any:
        """One observation with its inputs, or a batch of them."""
        if self._append:
            return np.concatenate([observation, action, reward, start], axis=-1)
        inputs = {"previous_action": action, "previous_reward": reward, "attempt_start": start}
        return {"observation": observation, **inputs}


class RL2Inputs(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds what a memory agent needs to adapt: previous action, previous reward, attempt start (RL^2, E-RL^2).

    The previous action is the agent's own, one-hot where actions are discrete and as it is where they are a vector;
    zeros when no action was played since (at the start, and after the ignored step between two attempts). The
    previous reward is on the agent's scale and true also in attempts that pay nothing.

    Args:
        env: An mtbench environment. Batches take :class:`VectorRL2Inputs`.
        layout: ``"dict"`` gives a Dict with the keys ``observation``, ``previous_action`` (float32, (actions,)),
            ``previous_reward`` (float32, (1,)) and ``attempt_start`` (float32, (1,)); ``"append"`` adds them in
            this order to the end of a float32 vector observation.

    Raises:
        UsageError: Unknown layout, or ``"append"`` on an observation that is no vector.

    Example:
        >>> env = RL2Inputs(gym.make("mtbench:MTPOPGym-v0"))
        >>> sorted(env.observation_space)
        ['attempt_start', 'observation', 'previous_action', 'previous_reward']
    """

    def __init__(self, env: gym.Env[Any, Any], layout: Layout = "dict") -> None:
        RecordConstructorArgs.__init__(self, layout=layout)
        gym.Wrapper.__init__(self, env)
        rollout = env.unwrapped
        if not isinstance(rollout, MetaRollout):
            raise UsageError(f"RL2Inputs needs an mtbench environment, got {env}.")
        self._rollout = rollout
        self._inputs = _Inputs(env.observation_space, env.action_space, layout)
        self.observation_space = self._inputs.space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's; no previous action, reward 0."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_inputs(observation, None, True), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, with this action among the inputs if it was played."""
        played = self._rollout.playing
        observation, reward, terminated, truncated, info = self.env.step(action)
        if "final_attempt_obs" in info:
            info = {**info, "final_attempt_obs": self._with_inputs(info["final_attempt_obs"], action, False)}
        seen = self._with_inputs(observation, action if played else None, self._rollout.attempt_start)
        return seen, reward, terminated, truncated, info

    def _with_inputs(self, observation: Any, action: Any, attempt_start: bool) -> Any:
        previous = np.zeros(self._inputs.size, np.float32) if action is None else self._inputs.encode([action])[0]
        reward = np.array([self._rollout.attempt_reward], dtype=np.float32)
        return self._inputs.join(observation, previous, reward, np.array([attempt_start], dtype=np.float32))


class VectorRL2Inputs(gym.vector.VectorWrapper[Any, Any, Any, Any, Any]):
    """:class:`RL2Inputs` for ``gym.make_vec``: each row is what the single wrapper shows, in every autoreset mode.

    Args:
        env: An mtbench vector environment on the suite's engine.
        layout: As for :class:`RL2Inputs`.

    Raises:
        UsageError: As for :class:`RL2Inputs`, or another kind of vector environment.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], layout: Layout = "dict") -> None:
        from mtbench.vector.rollout import VectorMetaRollout

        super().__init__(env)
        rollout = env.unwrapped
        if not isinstance(rollout, VectorMetaRollout):
            raise UsageError(
                f"VectorRL2Inputs needs an mtbench vector environment on the suite's engine, got {env}. Otherwise wrap "
                'single environments: gym.make_vec(..., vectorization_mode="sync", wrappers=[RL2Inputs]).'
            )
        self._rollout: VectorMetaRollout = rollout
        self.autoreset_mode: Final = rollout.autoreset_mode  # TorchRL asks for it, and wrappers do not hand it on
        self._inputs = _Inputs(env.single_observation_space, env.single_action_space, layout)
        self.single_observation_space = self._inputs.space
        self.observation_space = batch_space(self._inputs.space, env.num_envs)
        self._action = np.zeros((env.num_envs, self._inputs.size), dtype=np.float32)
        self._reward, self._start = np.zeros((2, env.num_envs, 1), dtype=np.float32)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's; no previous action, reward 0. Rows that a mask leaves out keep their inputs."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self._begin(slice(None) if not options else options.get("reset_mask", slice(None)))
        return self._joined(observations), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """As the environment's, with the actions that were played among the inputs."""
        task = self._rollout.task_index
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        played, attempt_rewards, attempt_starts = self._rollout.latest_step(task)
        self._action[:] = 0.0
        self._action[played] = self._inputs.encode(np.asarray(actions)[played])
        self._reward[:, 0], self._start[:, 0] = attempt_rewards, attempt_starts
        infos = self._with_inputs(infos)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            self._begin(terminated | truncated)
        return self._joined(observations), rewards, terminated, truncated, infos

    def _begin(self, rows: Any) -> None:
        """Rollouts begin in these rows."""
        self._action[rows], self._reward[rows], self._start[rows] = 0.0, 0.0, 1.0

    def _joined(self, observations: Any) -> Any:
        return self._inputs.join(observations, self._action.copy(), self._reward.copy(), self._start.copy())

    def _with_inputs(self, infos: dict[str, Any]) -> dict[str, Any]:
        """The last observations of attempts and rollouts, where ``infos`` has them, with their inputs."""
        from mtbench.vector.infos import only

        infos = dict(infos)
        if "final_attempt_obs" in infos:
            rows = infos["_final_attempt_obs"]
            finals = infos["final_attempt_obs"]
            if isinstance(finals, dict):
                finals = {name: part for name, part in finals.items() if not name.startswith("_")}
            joined = self._inputs.join(finals, self._action, self._reward, np.zeros_like(self._start))
            infos["final_attempt_obs"] = only(joined, rows)
        if "final_obs" in infos:
            finals = infos["final_obs"] = infos["final_obs"].copy()
            for i in np.flatnonzero(infos["_final_obs"]).tolist():
                inputs = (part[i].copy() for part in (self._action, self._reward, self._start))
                finals[i] = self._inputs.join(finals[i], *inputs)
        return infos
