"""Stable-Baselines3's ``VecEnv`` on mtbench's engines.

    >>> from mtbench.clients.sb3 import make_vec_env
    >>> venv = make_vec_env("MTPOPGym-v0", n_envs=64, seed=0)

One SB3 episode is one meta-rollout. :class:`mtbench.adapters.SB3Policy` makes a policy of a trained model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from mtbench.errors import UsageError, missing_extra_error
from mtbench.vector import make_vec
from mtbench.vector.infos import info_of

try:
    from stable_baselines3.common.torch_layers import CombinedExtractor
    from stable_baselines3.common.vec_env import VecEnv, VecMonitor
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] != "stable_baselines3":
        raise
    raise missing_extra_error("stable-baselines3", "sb3", "mtbench.clients.sb3") from None

# SB3's VecEnvStepReturn, whose dictionaries say no types.
StepReturn = tuple[VecEnvObs, npt.NDArray[Any], npt.NDArray[Any], list[dict[str, Any]]]

# What the environments of an engine have in common, and its own name there.
_SHARED = {name: name for name in ("suite", "split", "tasks", "k", "objective", "attempt_reset", "render_mode", "spec")}
_SHARED |= {"observation_space": "single_observation_space", "action_space": "single_action_space"}


def make_vec_env(
    env_id: str, n_envs: int = 1, seed: int | None = None, monitor_file: str | None = None, **kwargs: Any
) -> VecMonitor:
    """Environments for ``PPO(policy, venv)`` and SB3's other algorithms, counted by SB3's ``VecMonitor``.

    Environment i plays what ``stable_baselines3.common.env_util.make_vec_env`` plays in its i-th one, faster.

    Args:
        env_id: A registered ID.
        n_envs: How many environments.
        seed: Of the first environment; the others follow. None draws one. An algorithm's own ``seed`` replaces it.
        monitor_file: Where SB3 writes returns and lengths of the meta-rollouts, as its ``Monitor`` does.
        **kwargs: As for :func:`mtbench.vector.make_vec`: the environment's, ``num_workers`` and ``render_mode`` (which
            needs the slow single environments).

    Raises:
        ValueError: An argument's value does not exist or is out of range.
        TypeError: An unknown argument.
        gymnasium.error.DependencyNotInstalled: The suite's packages are missing.
    """
    # Never `copy=False`: SB3 keeps the previous observations while it steps.
    venv = make_vec(env_id, num_envs=n_envs, autoreset_mode=AutoresetMode.SAME_STEP, copy=True, **kwargs)
    made = MetaRolloutVecEnv(venv)
    if seed is not None:
        made.seed(seed)
    return VecMonitor(made, monitor_file)


class MetaRolloutVecEnv(VecEnv):
    """A ``gymnasium.vector`` environment as SB3's algorithms take it.

    Observations, rewards (float32), dones and infos are those of SB3's ``DummyVecEnv``. ``info["rollout"]`` of a last
    step has the statistics of the meta-rollout.

    ``get_attr("task")`` and ``get_attr("variant")`` are for evaluators. An engine steps all environments together:
    :meth:`env_method` and :meth:`set_attr` work only on single environments, which ``render_mode`` makes.

    Args:
        venv: A vector environment with same-step autoreset, wrapped or not.

    Raises:
        UsageError: It resets its environments otherwise.
    """

    def __init__(self, venv: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        mode = venv.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise UsageError(
                f"Stable-Baselines3 resets in the same step, this environment has {mode}: "
                'make it with gym.make_vec(..., autoreset_mode="SameStep").'
            )
        self.venv: Final = venv
        self.spec: Final = venv.spec
        #: The single environments where they are stepped one by one, None on an engine.
        self._singles: Sequence[gym.Env[Any, Any]] | None = getattr(venv.unwrapped, "envs", None)
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    # ---- playing ----

    def reset(self) -> VecEnvObs:
        """Begin a meta-rollout everywhere, with the seeds and options that were set since the last reset."""
        observations, infos = self.venv.reset(seed=list(self._seeds), options=_merged(self._options))  # type: ignore[arg-type]
        self.reset_infos: list[dict[str, Any]] = self._split(infos)
        self._reset_seeds()
        self._reset_options()
        return observations  # type: ignore[no-any-return]

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> StepReturn:
        """Play one step; where a rollout ends, the next one begins."""
        observations, rewards, terminated, truncated, batch = self.venv.step(self._actions)
        dones = terminated | truncated
        final_obs, final_info = batch.pop("final_obs", None), batch.pop("final_info", None)
        infos = self._split(batch)
        for i in np.flatnonzero(dones).tolist():
            self.reset_infos[i] = infos[i]  # what the batch says there is of the rollout that began
            infos[i] = {**info_of(final_info, i), "terminal_observation": final_obs[i]}
        # Fresh dictionaries: SB3's wrappers and users' callbacks write into them.
        for info, timeout in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = timeout
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the environments."""
        self.venv.close()

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """A picture of each environment; None without ``render_mode="rgb_array"``."""
        frames: Any = None if self.render_mode is None else self.venv.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def _split(self, infos: dict[str, Any]) -> list[dict[str, Any]]:
        return [info_of(infos, i) for i in range(self.num_envs)] if infos else [{} for _ in range(self.num_envs)]

    # ---- single environments ----

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the environments; on an engine they share all but ``task`` and ``variant``."""
        rows = list(self._get_indices(indices))
        if self._singles is not None:
            return [self._singles[i].get_wrapper_attr(attr_name) for i in rows]
        engine: Any = self.venv.unwrapped
        if attr_name == "task":
            names = list(engine.suite.tasks)
            return [names[engine.task_index[i]] for i in rows]
        if attr_name == "variant":
            return engine.variant[rows].tolist()  # type: ignore[no-any-return]
        if attr_name not in _SHARED:
            raise AttributeError(self._no_single("get", attr_name))
        return [getattr(engine, _SHARED[attr_name])] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of single environments; an engine has none to set it on."""
        for env in self._chosen("set", attr_name, indices):
            setattr(env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of single environments; an engine has none to call it on."""
        chosen = self._chosen("call", method_name, indices)
        return [env.get_wrapper_attr(method_name)(*method_args, **method_kwargs) for env in chosen]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Whether the environments are in a wrapper of this class; on an engine they are in none."""
        from stable_baselines3.common.env_util import is_wrapped

        rows = list(self._get_indices(indices))
        if self._singles is None:
            return [False for _ in rows]
        return [is_wrapped(self._singles[i], wrapper_class) for i in rows]

    def _chosen(self, what: str, name: str, indices: VecEnvIndices) -> list[gym.Env[Any, Any]]:
        if self._singles is None:
            raise UsageError(self._no_single(what, name))
        return [self._singles[i] for i in self._get_indices(indices)]

    def _no_single(self, what: str, name: str) -> str:
        return (
            f"There is no single environment to {what} {name!r} on: an engine steps all {self.num_envs} together. "
            "Give the setting to make_vec_env, or use stable_baselines3.common.env_util.make_vec_env."
        )


class DictExtractor(CombinedExtractor):
    """SB3's extractor for Dict observations, fit for sb3-contrib's ``MultiInputLstmPolicy``.

    That policy stops with ``input_size should be of type int, got: int64`` on every Dict that has a MultiDiscrete part,
    such as BabyAI's mission: the extractor counts its features in NumPy integers, and torch's LSTM takes only Python's.
    Use it as ``policy_kwargs={"features_extractor_class": DictExtractor}``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._features_dim = int(self._features_dim)


def _merged(options: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """One ``options`` of reset for all environments from those that SB3 keeps for each."""
    if all(each == options[0] for each in options):
        return dict(options[0]) or None
    if any(each.keys() != options[0].keys() for each in options):
        raise UsageError(f"Pin the same things in every environment, got {[sorted(each) for each in options]}.")
    merged: dict[str, Any] = {name: [each[name] for each in options] for name in options[0]}
    if "variant" in merged:
        merged["variant"] = np.array(merged["variant"]).reshape(len(options), -1)
    return merged
