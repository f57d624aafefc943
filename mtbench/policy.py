"""The batched Policy protocol: what evaluation drives and every agent implements.

A policy sees observations and the moments when a rollout begins, nothing else. A plain function
``f(observation) -> action`` is a policy too, through :func:`load_policy`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector.utils import iterate

from mtbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from mtbench.rollout import MetaRollout

# Names that stand for policies this project ships; imported when asked for.
BUILT_IN = {
    "random": "mtbench_agents.random:RandomPolicy",
    "oracle": "mtbench_agents.oracles:Oracle",
}


@runtime_checkable
class Policy(Protocol):
    """Plays many environments at once."""

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Forget everything and get ready for `num_envs` environments.

        Args:
            num_envs: Rows in every batch until the next ``start``.
            seed: Seeds every draw the policy makes until then.
            observation_space: Of one environment.
            action_space: Of one environment.
        """

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> Any:
        """One action per environment.

        Args:
            observations: A batch, as ``gymnasium.vector`` lays it out: ``(num_envs, ...)`` arrays.
            reset_mask: Shape (num_envs,); True where the observation is the first of a new meta-rollout, so that
                memory of the previous one must be dropped. Rows of environments with nothing left to play repeat
                their last observation; their actions are ignored.

        Returns:
            Actions for the rows, indexable by row: a list or an array of shape ``(num_envs, ...)``.
        """


@runtime_checkable
class PrivilegedPolicy(Policy, Protocol):
    """A policy that reads hidden state, such as an oracle. Records say so."""

    def bind(self, environments: Sequence[MetaRollout]) -> None:
        """Hand over the environments behind the rows; called after every ``start``."""


@runtime_checkable
class RewardedPolicy(Policy, Protocol):
    """A policy that wants the rewards it is paid among its inputs, as memory agents do."""

    def observe_rewards(self, rewards: npt.NDArray[np.float64]) -> None:
        """The rewards ``(num_envs,)`` of the latest actions; called after every step, before the next ``act``."""


@runtime_checkable
class TrainedPolicy(Policy, Protocol):
    """A policy that knows what records should say of it.

    Attributes:
        agent: Its name.
        train_seed: Seed of its training run.
        step: Environment steps it was trained for.
    """

    agent: str
    train_seed: int
    step: int


class FunctionPolicy:
    """Makes a policy of a function of one observation."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Remember how to split a batch into observations."""
        from gymnasium.vector.utils import batch_space

        self._space = batch_space(observation_space, num_envs)

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> list[Any]:
        """Ask the function row by row."""
        return [self._function(observation) for observation in iterate(self._space, observations)]


def load_policy(name: str) -> Policy:
    """A policy by name or import path.

    Args:
        name: ``"random"``, ``"oracle"``, the folder of a training run (its newest checkpoint plays),
            ``"package.module:attribute"`` or ``"path/to/file.py:attribute"``. The
            attribute is a :class:`Policy`, a class or function without required arguments that makes one, or a
            plain function ``f(observation) -> action``.

    Raises:
        ValueError: The name cannot be resolved or is no policy; the message says why.
    """
    if (Path(name) / "config.json").is_file():
        trained: Policy = importlib.import_module("mtbench_agents.transformer.policy").load_run(Path(name))
        return trained
    target = BUILT_IN.get(name, name)
    if ":" not in target:
        raise unknown("policy", name, [*BUILT_IN, "module:attribute", "file.py:attribute"], "mtbench")
    path, attribute = target.rsplit(":", 1)
    module = _load_file(path) if path.endswith(".py") else _load_module(path, name)
    if not hasattr(module, attribute):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise unknown("attribute", attribute, public or ["(nothing)"], f"`{path}`")
    found = getattr(module, attribute)
    if isinstance(found, Policy) and not isinstance(found, type):
        return found
    if not callable(found):
        raise UsageError(f"{name!r} is a {type(found).__name__}: neither a policy nor callable.")
    required = _required_arguments(found)
    if required == 1 and not isinstance(found, type):
        return FunctionPolicy(found)
    made = found() if required == 0 else None
    if not isinstance(made, Policy):
        raise UsageError(
            f"{name!r} is no policy: give an object with `start` and `act` (mtbench.policy.Policy), "
            "something that makes one without arguments, or a function of one observation."
        )
    return made


def _required_arguments(function: Callable[..., Any]) -> int:
    parameters = inspect.signature(function).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.default is p.empty and p.kind in positional for p in parameters)


def _load_module(path: str, name: str) -> Any:
    # A user's own module lies in the current folder, which console scripts do not search.
    sys.path.insert(0, "")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        raise UsageError(f"The policy {name!r} cannot be imported: no module named {error.name!r}.") from None
    finally:
        sys.path.remove("")


def _load_file(path: str) -> Any:
    if not Path(path).is_file():
        raise UsageError(f"There is no file {path!r} to load a policy from.")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
