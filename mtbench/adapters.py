"""Models of other libraries as policies: what ``mtbench evaluate --policy my_file.py:policy`` finds in a user's file.

    from stable_baselines3 import PPO
    from mtbench.adapters import SB3Policy

    policy = SB3Policy(PPO.load("ppo.zip"))

A plain function of one observation needs no adapter (:func:`mtbench.policy.as_policy`). Importing this module imports
none of the libraries.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtbench.errors import UsageError

if TYPE_CHECKING:
    import torch

# What VecNormalize has of its environment, and leaves out itself.
_NOT_SAVED = ("venv", "class_attributes", "returns", "old_obs", "old_reward")


class SB3Policy:
    """A model of Stable-Baselines3 or sb3-contrib, with or without memory.

    Recurrent models keep one LSTM state for each environment and drop it where a meta-rollout begins. Images are handed
    over as the environment shows them; SB3 moves their channels itself. The policy can be pickled if SB3 can save the
    model. Records name the algorithm, its seed and its steps.

    Args:
        model: An algorithm such as ``PPO.load("ppo.zip")``, or one of SB3's policies.
        deterministic: Take the most likely action; False samples.
        normalizer: The ``VecNormalize`` that the model learned behind, or the file it was saved in. None takes the one
            in the environment of a model that still has it.

    Attributes:
        agent: Name of the algorithm.
        train_seed: Seed of the algorithm; None if it has none.
        step: Environment steps it learned from; None if the model does not know.
    """

    def __init__(self, model: Any, deterministic: bool = True, normalizer: Any = None) -> None:
        if not all(hasattr(model, name) for name in ("predict", "observation_space", "action_space")):
            raise UsageError(f"SB3Policy needs a model of Stable-Baselines3, got a {type(model).__name__}.")
        if isinstance(normalizer, (str, Path)):
            normalizer = pickle.loads(Path(normalizer).read_bytes())  # as VecNormalize.load does
        elif normalizer is None and hasattr(model, "get_vec_normalize_env"):
            normalizer = model.get_vec_normalize_env()
        self._model, self._deterministic, self._normalizer = model, deterministic, normalizer

    @property
    def agent(self) -> str:
        """Name of the algorithm."""
        return type(self._model).__name__

    @property
    def train_seed(self) -> int | None:
        """Seed of the algorithm."""
        return getattr(self._model, "seed", None)

    @property
    def step(self) -> int | None:
        """Environment steps it learned from."""
        return getattr(self._model, "num_timesteps", None)

    @property
    def digest(self) -> str:
        """SHA-256 of what decides its actions: the weights, the normalizer's statistics, whether it samples."""
        statistics = None if self._normalizer is None else vars(self._normalizer).get("obs_rms")
        each = statistics if isinstance(statistics, dict) else {"": statistics}
        numbers = {name: None if one is None else (one.mean.tolist(), one.var.tolist()) for name, one in each.items()}
        return _digest(getattr(self._model, "policy", self._model), self._deterministic, numbers)

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Forget everything; see :class:`mtbench.policy.Policy`.

        Raises:
            UsageError: The model learned on other spaces.
        """
        model = self._model
        normalized = self._normalizer is not None and self._normalizer.norm_obs
        if not _fits(model.observation_space, observation_space, normalized):
            raise _misfit(self.agent, "observations", model.observation_space, observation_space)
        if model.action_space != action_space:
            raise _misfit(self.agent, "actions", model.action_space, action_space)
        self._state: Any = None
        self._draws = np.random.default_rng(seed)
        self._actions = copy.deepcopy(model.action_space)
        self._actions.seed(seed)
        if not self._deterministic and getattr(model, "use_sde", False):
            with self._own_generators():
                getattr(model, "policy", model).reset_noise(num_envs)

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        """One action per environment."""
        if self._normalizer is not None:
            observations = self._normalizer.normalize_obs(observations)
        with self._own_generators():
            actions, self._state = self._model.predict(
                observations, state=self._state, episode_start=reset_mask, deterministic=self._deterministic
            )
        return actions  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _own_generators(self) -> Iterator[None]:
        """Let SB3 draw from this policy's own streams: it samples from PyTorch's global generator, DQN from NumPy's."""
        if self._deterministic:
            yield
            return
        model = self._model
        seed = int(self._draws.integers(2**32))
        with _torch_seeded(seed, model.device):
            if not hasattr(model, "exploration_rate"):
                yield
                return
            state, actions = np.random.get_state(), model.action_space  # noqa: NPY002 (SB3's choice)
            np.random.seed(seed)  # noqa: NPY002
            model.action_space = self._actions
            try:
                yield
            finally:
                np.random.set_state(state)  # noqa: NPY002
                model.action_space = actions

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if hasattr(self._model, "get_parameters"):  # an algorithm: it has open files and environments
            saved = io.BytesIO()
            self._model.save(saved)
            state["_model"] = type(self._model), saved.getvalue(), str(self._model.device)
        if self._normalizer is not None:  # it cannot be pickled again once it was loaded
            kept = {name: value for name, value in vars(self._normalizer).items() if name not in _NOT_SAVED}
            state["_normalizer"] = type(self._normalizer), kept
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["_model"], tuple):
            kind, saved, device = state["_model"]
            with global_generators_kept():  # loading seeds them all
                state = {**state, "_model": kind.load(io.BytesIO(saved), device=device)}
        if isinstance(state["_normalizer"], tuple):
            kind, kept = state["_normalizer"]
            state = {**state, "_normalizer": kind.__new__(kind)}
            state["_normalizer"].__setstate__(kept)
        self.__dict__.update(state)


class TorchRLPolicy:
    """A TorchRL (TensorDict) module.

    The module reads observations as ``GymWrapper(gym.make_vec(...))`` shows them: a vector or image under
    ``observation``, the parts of a Dict under their own names. What it writes under ``next``, such as the states of
    ``LSTMModule``, comes back in the next step; it is zero where a meta-rollout begins, and ``is_init`` is then true.
    Transforms without memory, such as ``ToTensorImage``, go in front of it in a ``TensorDictSequential``. The policy
    can be pickled if the module can.

    Args:
        module: Such as a ``ProbabilisticActor``.
        deterministic: Take the distribution's most likely action; False samples.
        action_key: Where the module writes its actions: one-hot, integers or real numbers (clipped to the bounds).
    """

    def __init__(self, module: Any, deterministic: bool = True, action_key: str = "action") -> None:
        if not hasattr(module, "in_keys") or not hasattr(module, "out_keys"):
            raise UsageError(
                f"TorchRLPolicy needs a module with in_keys and out_keys, got a {type(module).__name__}: "
                "wrap it in tensordict.nn.TensorDictModule."
            )
        if action_key not in module.out_keys:
            raise UsageError(f"The module writes {list(module.out_keys)}, no {action_key!r}: give its `action_key`.")
        self._module, self._deterministic, self._action_key = module, deterministic, action_key

    @property
    def digest(self) -> str:
        """SHA-256 of what decides its actions: the weights, and whether it samples."""
        return _digest(self._module, self._deterministic)

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Forget everything; see :class:`mtbench.policy.Policy`.

        Raises:
            UsageError: The module reads what the environment does not show.
        """
        shown = list(observation_space) if isinstance(observation_space, spaces.Dict) else ["observation"]
        carried = [key[1] for key in self._module.out_keys if isinstance(key, tuple) and key[0] == "next"]
        unknown = [key for key in self._module.in_keys if key not in (*shown, *carried, "is_init")]
        if unknown:
            raise UsageError(f"The module reads {unknown}, the environment's observations have only {shown}.")
        self._space = action_space
        self._carried: Any = None
        self._draws = np.random.default_rng(seed)

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        """One action per environment."""
        import torch
        from tensordict import TensorDict
        from torchrl.envs.utils import ExplorationType, set_exploration_type
        from torchrl.modules import set_recurrent_mode

        weight = next(self._module.parameters(), None)
        device = torch.device("cpu") if weight is None else weight.device
        shown = observations if isinstance(observations, dict) else {"observation": observations}
        step = TensorDict({name: torch.tensor(part) for name, part in shown.items()}, [len(reset_mask)])
        begins = torch.tensor(reset_mask)
        step["is_init"] = begins[:, None]
        step = step.to(device)
        if self._carried is not None:
            begins = begins.to(device)
            step.update(self._carried.apply(lambda part: part.masked_fill(_as_rows(begins, part), 0)))
        kind = ExplorationType.DETERMINISTIC if self._deterministic else ExplorationType.RANDOM
        own = _torch_seeded(int(self._draws.integers(2**32)), device)
        with torch.no_grad(), set_exploration_type(kind), set_recurrent_mode(False), _evaluating(self._module), own:
            step = self._module(step)
        self._carried = step.get("next", None)
        return self._played(step[self._action_key].cpu().numpy(), len(reset_mask))

    def _played(self, actions: npt.NDArray[Any], num_envs: int) -> npt.NDArray[Any]:
        """Actions as the environment takes them."""
        space = self._space
        if isinstance(space, spaces.Discrete):
            if actions.shape == (num_envs, space.n):
                return np.asarray(actions.argmax(axis=1) + int(space.start))
            if actions.size == num_envs and actions.dtype.kind in "iu":
                return actions.reshape(num_envs).astype(np.int64)
        elif isinstance(space, spaces.Box) and actions.shape == (num_envs, *space.shape):
            return np.asarray(np.clip(actions, space.low, space.high), dtype=space.dtype)
        raise UsageError(
            f"The module's actions for {num_envs} environments have shape {actions.shape} and dtype {actions.dtype}, "
            f"which is no batch of {space}."
        )


def _fits(learned: Any, shown: Any, normalized: bool) -> bool:
    """Whether a model of SB3 takes these observations: equal ones, images also with their channels first.

    Behind a normalizer bounds and dtypes differ, and only shapes are compared.
    """
    if isinstance(learned, spaces.Dict) and isinstance(shown, spaces.Dict):
        return learned.keys() == shown.keys() and all(_fits(learned[key], shown[key], normalized) for key in shown)
    if learned == shown:
        return True
    if not isinstance(learned, spaces.Box) or not isinstance(shown, spaces.Box):
        return False
    if normalized and learned.shape == shown.shape:
        return True
    image = len(shown.shape) == 3 and shown.dtype == learned.dtype == np.uint8
    return image and learned.shape == (shown.shape[2], *shown.shape[:2])


def _misfit(agent: str, what: str, learned: Any, shown: Any) -> UsageError:
    return UsageError(
        f"{agent} learned on other {what} than this environment's. Its own: {learned}. The environment's: {shown}. "
        "Evaluate it with the arguments it learned with (--env on the command line). A model that learned behind "
        "wrappers that change the space cannot be evaluated without them."
    )


def _as_rows(mask: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    return mask.view(-1, *(1,) * (part.ndim - 1))


def _digest(module: Any, *settings: Any) -> str:
    import torch

    digest = hashlib.sha256(repr(settings).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _torch_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators that sampling on this device draws from, and put them back afterwards."""
    import torch

    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextlib.contextmanager
def global_generators_kept() -> Iterator[None]:
    """Put the global generators back as they were."""
    import torch

    own, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)  # noqa: NPY002


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, and then every part's own mode again."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
