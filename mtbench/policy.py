"""The batched Policy protocol: what evaluation drives and every agent implements.

A policy sees observations and the moments when a rollout begins, nothing else. A plain function
``f(observation) -> action`` is a policy too, through :func:`load_policy`. :mod:`mtbench.adapters` makes policies of
Stable-Baselines3's and TorchRL's models.
"""

from __future__ import annotations

import hashlib
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

from mtbench.errors import UsageError, unknown_name_error

if TYPE_CHECKING:
    from mtbench.rollout import MetaRollout

# Names that stand for policies this project ships; imported when asked for.
BUILT_IN = {
    "random": "mtbench_agents.random:RandomPolicy",
    "oracle": "mtbench_agents.oracle:Oracle",
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
class ValuingPolicy(Policy, Protocol):
    """A policy that can say which return it expects. Films show it, and nothing else asks."""

    def act_and_value(
        self, observations: Any, reset_mask: npt.NDArray[np.bool_]
    ) -> tuple[Any, npt.NDArray[np.float64]]:
        """What ``act`` returns, and the discounted return that each row expects from its observation on.

        Returns:
            The actions, and values ``(num_envs,)`` on the scale of the rewards that the policy is paid.
        """


@runtime_checkable
class TrainedPolicy(Policy, Protocol):
    """A policy that knows what records should say of it.

    Attributes:
        agent: Its name.
        train_seed: Seed of its training run; None if it is not known.
        step: Environment steps it was trained for; None if it is not known.
    """

    agent: str
    train_seed: int | None
    step: int | None


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

    Example:
        >>> policy = load_policy("random")
        >>> isinstance(policy, Policy), isinstance(policy, PrivilegedPolicy)
        (True, False)
        >>> load_policy("randon")
        Traceback (most recent call last):
        ...
        mtbench.errors.UsageError: There is no policy 'randon' in mtbench. Did you mean 'random'? ...
    """
    if (Path(name) / "config.json").is_file():
        trained: Policy = importlib.import_module("mtbench_agents.training.agents").load_run(Path(name))
        return trained
    target = BUILT_IN.get(name, name)
    if ":" not in target:
        raise unknown_name_error("policy", name, [*BUILT_IN, "module:attribute", "file.py:attribute"], "mtbench")
    path, attribute = target.rsplit(":", 1)
    if not path or not attribute or (path.startswith(".") and not path.endswith(".py")):
        raise UsageError(f"{name!r} names no policy: write module:attribute or path/to/file.py:attribute.")
    module = _load_file(path) if path.endswith(".py") else load_module(path, "policy")
    if not hasattr(module, attribute):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise unknown_name_error("attribute", attribute, public or ["(nothing)"], f"`{path}`")
    return as_policy(getattr(module, attribute), name)


def as_policy(found: Any, name: str) -> Policy:
    """A policy from whatever a user has: a policy, something that makes one, or a plain function.

    Args:
        found: What was given.
        name: For messages.

    Raises:
        UsageError: It is none of them.
    """
    if isinstance(found, Policy) and not isinstance(found, type):
        return found
    if not callable(found):
        raise UsageError(f"{name!r} is neither a policy nor callable: it is of type {type(found).__name__}.")
    required, plain = _call_shape(found)
    if plain and not isinstance(found, type):
        return FunctionPolicy(found)
    made = found() if required == 0 else None
    if not isinstance(made, Policy):
        raise UsageError(
            f"{name!r} is no policy: give an object with `start` and `act` (mtbench.policy.Policy), "
            "something that makes one without arguments, or a function of one observation."
        )
    return made


def fingerprint(name: str, policy: object = None) -> str | None:
    """What identifies the code or weights behind a loaded policy's name; None for built-in ones.

    Records keep it, so that an edited policy is not taken for the one whose rollouts are there already.

    Args:
        name: As given to :func:`load_policy`.
        policy: What that returned. A trained agent's digest is that of the checkpoint which plays: the newest one may
            be damaged, or younger than the policy.
    """
    if name in BUILT_IN:
        return None
    trained = policy is not None or (Path(name) / "config.json").is_file()
    digest = getattr(policy or load_policy(name), "digest", None) if trained else None
    if isinstance(digest, str):
        return digest
    path = name.rsplit(":", 1)[0]
    file = path if path.endswith(".py") else getattr(sys.modules.get(path), "__file__", None)
    return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _call_shape(function: Callable[..., Any]) -> tuple[int, bool]:
    """How many arguments a call must have, and whether it looks like ``f(observation)``."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some built-in functions have no signature
        return 1, False
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    observes = bool(positional) and (required == positional[:1] or positional[0].name.startswith("obs"))
    return len(required), observes and all(p in positional[:1] for p in required)


def absolute_name(name: str) -> str:
    """The name as it is understood in another working directory."""
    if name in BUILT_IN or (":" in name and not name.rsplit(":", 1)[0].endswith(".py")):
        return name
    path, colon, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    return f"{Path(path).resolve()}{colon}{attribute}"


def search_path() -> list[str]:
    """Where this process finds modules, for one in another working directory."""
    return list(dict.fromkeys([str(Path.cwd()), *(str(Path(entry or ".").resolve()) for entry in sys.path)]))


def load_module(path: str, kind: str) -> Any:
    """A user's module by its import path; the working directory is searched first.

    Args:
        path: Such as ``"my_package.my_suite"``.
        kind: What it should hold, for messages.

    Raises:
        UsageError: There is no such module.
    """
    _search(Path())  # where a user's own module lies, and console scripts do not look
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        raise UsageError(f"The {kind} {path!r} cannot be imported: no module named {error.name!r}.") from None


def _search(folder: Path) -> None:
    """Let imports, now and while the policy acts, find what lies beside it, as Python does for a script."""
    path = str(folder.resolve())
    if sys.path[0] != path:
        sys.path.insert(0, path)


def _load_file(path: str) -> Any:
    if not Path(path).is_file():
        raise UsageError(f"There is no file {path!r} to load a policy from.")
    spec = importlib.util.spec_from_file_location(f"mtbench_policy_{Path(path).stem}", path)
    assert spec is not None
    assert spec.loader is not None
    _search(Path(path).parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look for it
    spec.loader.exec_module(module)
    return module
