"""Collect rollouts: step a batch of environments with the cached policy and exploration."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode

from mtbench.vector import resuming

from .acting import ActingModel, Player
from .config import CollectConfig
from .replay import Rollout
from .trees import flat, leaves, tree_map, unflat
from .unfinished import play_again

Array = npt.NDArray[Any]

# What the collector's arrays are called in a checkpoint.
UNFINISHED, _PLAYER = "unfinished.", "player."

#: Of these arrays, the axis that counts environments; it is the first one of the others.
ENVIRONMENT_AXIS = {"actions": 1, "rewards": 1, _PLAYER + "keys": 1, _PLAYER + "values": 1}


class Collector:
    """Plays a vector environment with next-step autoreset and yields whole rollouts.

    Every environment draws an exploration multiplier in [0, 1) for each rollout, so that some environments of a batch
    always explore more than others. Epsilon falls linearly over all steps taken and, with `epsilon_late`, also within a
    rollout (paper's release).

    Noise of single steps averages out, and what the policy is sure of stays as it is. With `epsilon_hold`, each number
    of a continuous action is a random one for some steps on end, for a share epsilon of the time and by itself, as in
    temporally extended epsilon-greedy exploration (Dabney et al., ICLR 2021), which holds whole actions.

    Args:
        envs: The environments.
        config: Exploration.
        seed: Of environments and exploration.
        device: Where the policy runs.
    """

    def __init__(self, envs: gym.vector.VectorEnv, config: CollectConfig, seed: int, device: torch.device) -> None:
        if envs.metadata.get("autoreset_mode") is not AutoresetMode.NEXT_STEP:
            raise ValueError("The collector needs environments with next-step autoreset.")
        self.envs: Final = envs
        self.config: Final = config
        self.device: Final = device
        self.steps: int = 0  # environment steps whose actions were played
        space = envs.single_action_space
        self._num_actions = int(space.n) if isinstance(space, gym.spaces.Discrete) else 0
        self._seed = seed
        self.restart(0)

    def restart(self, *era: int) -> None:
        """Begin new rollouts everywhere, from a seed fixed by (seed, era); unfinished ones are dropped."""
        sequence = np.random.SeedSequence([self._seed, *era])
        self._rng = np.random.default_rng(sequence)
        seeds = [int(child.generate_state(1)[0]) for child in sequence.spawn(self.envs.num_envs)]
        observation, _ = self.envs.reset(seed=seeds)  # type: ignore[arg-type]
        n = self.envs.num_envs
        self._player = Player(n, self.envs.single_action_space, self._rng, self.device)
        self._observation = tree_map(np.array, observation)
        self._begins = np.ones(n, dtype=np.bool_)  # where the next observation is a rollout's first
        self._ended = np.zeros(n, dtype=np.bool_)  # where the last step ended a rollout
        self._curiosity = self._rng.random(n)
        self._held = np.full(self._player.previous_action.shape, np.nan)  # NaN: as the policy acts
        # What the latest rollout that ended was drawn from, and what the one after it is, for each environment.
        self._next_drawn_from = resuming.seeded_streams(seeds)
        self._drawn_from = self._next_drawn_from.copy()
        # Rollouts under way, (place, environment, ...), grown as needed, and how far each is.
        self._length: Array = np.zeros(n, dtype=np.int64)
        self._allocate(256)
        self._show(0, np.ones(n, dtype=np.bool_))

    def _allocate(self, places: int) -> None:
        self._observations = tree_map(lambda now: np.empty((places, *now.shape), dtype=now.dtype), self._observation)
        self._actions = np.empty((places, *self._player.previous_action.shape), self._player.previous_action.dtype)
        self._rewards = np.empty((places, self.envs.num_envs), dtype=np.float32)

    @property
    def examples(self) -> tuple[Any, Array]:
        """One observation and one action, for their shapes and dtypes."""
        return tree_map(lambda now: now[0], self._observation), self._player.previous_action[0]

    @property
    def epsilon(self) -> float:
        """Exploration now, at the start of a rollout and before each environment's multiplier."""
        return self._epsilon(1.0, 1.0)

    def _epsilon(self, start_factor: float, end_factor: float) -> float:
        return explored(self.config, self.steps, start_factor, end_factor)

    def collect(
        self, model: ActingModel, steps: int, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Rollout, Array | None]]:
        """Take at least `steps` environment steps; yield rollouts as they end, with their attempts' returns.

        Args:
            model: Acts.
            steps: Over all environments.
            stopped: Called before every step of the batch; collecting ends when it returns True.
        """
        target = self.steps + steps
        while self.steps < target and not stopped():
            yield from self._step(model)

    def _step(self, model: ActingModel) -> list[tuple[Rollout, Array | None]]:
        player = self._player
        player.restart(self._begins)
        actions = self._explore(player.act(model, self._observation))
        observation, reward, terminated, truncated, info = self.envs.step(player.to_environment(actions))
        # Where a rollout ended one step ago, this step was Gymnasium's reset: its action was not played.
        began, played = self._ended, ~self._ended
        player.took(actions)
        player.received(np.asarray(reward, dtype=np.float32))
        self._observation = tree_map(np.array, observation)
        self._store(played, actions, player.previous_reward)
        self.steps += int(played.sum())
        self._length = np.where(played, self._length + 1, 0)
        self._show(0, began)
        self._curiosity[began] = self._rng.random(int(began.sum()))
        self._begins = began
        self._ended = played & (terminated | truncated)
        return [self._finish(int(i), bool(terminated[i]), info) for i in np.flatnonzero(self._ended)]

    def _explore(self, actions: Array) -> Array:
        late = np.minimum(1.0, self._length / max(1, self.config.epsilon_horizon))
        begin, end = self.epsilon, self._epsilon(*self.config.epsilon_late)
        epsilon = (begin + late * (end - begin)) * self._curiosity
        if self._num_actions:
            random = self._rng.integers(self._num_actions, size=len(actions))
            curious = self._rng.random(len(actions)) < epsilon
            return np.asarray(np.where(curious, random, actions))
        if self.config.epsilon_hold:
            over = self._rng.random(actions.shape) < 1 / self.config.epsilon_hold
            curious = self._rng.random(actions.shape) < epsilon[:, None]
            drawn = np.where(curious, self._rng.uniform(-1, 1, actions.shape), np.nan)
            self._held = np.where(over, drawn, self._held)
            return np.asarray(np.where(np.isnan(self._held), actions, self._held), dtype=np.float32)
        noise = self._rng.standard_normal(actions.shape) * epsilon[:, None]
        return np.asarray(np.clip(actions + noise, -1, 1), dtype=np.float32)

    # ---- rollouts under way ----

    def _store(self, played: Array, actions: Array, rewards: Array) -> None:
        if np.max(self._length) + 1 >= len(self._rewards):
            for name in ("_observations", "_actions", "_rewards"):
                twice = tree_map(lambda held: np.concatenate([held, np.empty_like(held)]), getattr(self, name))
                setattr(self, name, twice)
        rows, at = np.flatnonzero(played), self._length[played]
        self._actions[at, rows] = actions[rows]
        self._rewards[at, rows] = rewards[rows]
        self._show(at + 1, rows)

    def _show(self, at: Array | int, rows: Array, observation: Any = None) -> None:
        """Keep what these environments show, at these places of their rollouts."""
        now = self._observation if observation is None else observation
        for held, new in zip(leaves(self._observations), leaves(now), strict=True):
            held[at, rows] = new[rows]

    def _finish(self, i: int, terminated: bool, info: dict[str, Any]) -> tuple[Rollout, Array | None]:
        self._drawn_from[i] = self._next_drawn_from[i]
        self._next_drawn_from[i] = resuming.streams(self.envs, [i])[0]
        length = int(self._length[i])
        rollout = Rollout(
            observations=tree_map(lambda held: held[: length + 1, i].copy(), self._observations),
            actions=self._actions[:length, i].copy(),
            rewards=self._rewards[:length, i].copy(),
            terminated=terminated,
            task=_task_index(self.envs, i),
        )
        statistics = info.get("rollout")
        return rollout, None if statistics is None else np.array(statistics["returns"][i])

    # ---- checkpoints ----

    def state(self) -> dict[str, Array]:
        """Unfinished rollouts and all that the next step depends on, as arrays for a checkpoint.

        Their observations are left out: playing the actions again shows them.
        """
        longest = int(np.max(self._length))
        exists = np.arange(longest)[:, None] < self._length
        player = self._player.state()
        state = {
            "steps": np.array(self.steps),
            "length": self._length.copy(),
            "ended": self._ended.copy(),
            "begins": self._begins.copy(),
            "curiosity": self._curiosity.copy(),
            "held": self._held.copy(),
            **tree_map(np.copy, flat("observation", self._observation)),
            "drawn_from": self._drawn_from.copy(),
            "next_drawn_from": self._next_drawn_from.copy(),
            "actions": _where(exists, self._actions[:longest]),
            "rewards": _where(exists, self._rewards[:longest]),
            "rng": np.array(json.dumps(self._rng.bit_generator.state)),
            **{_PLAYER + name: array for name, array in player.items()},
        }
        return {UNFINISHED + name: array for name, array in state.items()}

    def load_state(self, state: dict[str, Array], model: ActingModel) -> None:
        """Go on where :meth:`state` was called, bit for bit.

        New rollouts begin if the checkpoint has none, since it is of an earlier version, or if the environments do not
        repeat them; a warning tells of the latter.

        Args:
            state: Of a collector with the same settings.
            model: The one that acts.
        """
        state = _inside(state, UNFINISHED)
        if not state:
            self.restart(self.steps)
            return
        self.steps = int(state["steps"])
        if not self._play_again(state):
            warnings.warn(
                "The environments do not repeat the unfinished rollouts of the checkpoint (does a package have another "
                "version than before?). They are dropped, and new ones begin.",
                stacklevel=2,
            )
            self.restart(self.steps)
            return
        for name in ("length", "ended", "begins", "curiosity", "drawn_from", "next_drawn_from"):
            setattr(self, f"_{name}", state[name].copy())
        if "held" in state:  # not of an earlier version
            self._held = state["held"].copy()
        self._observation = tree_map(np.copy, unflat("observation", self._observation, state))
        self._rng.bit_generator.state = json.loads(str(state["rng"]))
        self._player.load_state(_inside(state, _PLAYER), model)

    def _play_again(self, state: dict[str, Array]) -> bool:
        """Bring the environments to where they were, and fill the buffers; returns whether all is as it was."""
        length, actions, rewards = state["length"], state["actions"], state["rewards"]
        self._allocate(max(256, len(actions) + 2))
        self._actions[: len(actions)], self._rewards[: len(rewards)] = actions, rewards
        alike = True

        def compare(rows: Array, steps: Array, observation: Any, reward: Array, ended: Array) -> None:
            nonlocal alike
            self._show(steps, rows, observation)
            later = steps > 0
            paid = np.asarray(reward, dtype=np.float32)[rows[later]]
            over = state["ended"][rows] & (steps == length[rows])
            alike &= np.array_equal(paid, rewards[steps[later] - 1, rows[later]])
            alike &= np.array_equal(ended[rows], over)

        begun_from = np.where(state["ended"][:, None], state["drawn_from"], state["next_drawn_from"])
        played = self._player.to_environment(actions)
        play_again(self.envs, begun_from, length, played, compare)
        now = tree_map(lambda held: held[length, np.arange(len(length))], self._observations)
        saved = unflat("observation", now, state)
        return alike and all(map(np.array_equal, leaves(now), leaves(saved)))


def explored(config: CollectConfig, steps: int, start_factor: float = 1.0, end_factor: float = 1.0) -> float:
    """Epsilon after so many environment steps, its ends multiplied by factors."""
    share = min(1.0, steps / max(1, config.epsilon_steps))
    return (1 - share) * config.epsilon_start * start_factor + share * config.epsilon_end * end_factor


def _task_index(envs: gym.vector.VectorEnv, i: int) -> int:
    """Privileged: of the rollout that environment i plays, for the replay; 0 where it is no meta-rollout."""
    base: Any = envs.unwrapped
    if hasattr(base, "task_index"):
        return int(base.task_index[i])
    return int(getattr(base.envs[i].unwrapped, "task_index", 0))


def _inside(state: dict[str, Array], prefix: str) -> dict[str, Array]:
    """The arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _where(exists: Array, values: Array) -> Array:
    """`values` ``(T, N, ...)`` where they exist, else 0."""
    return np.where(exists.reshape(*exists.shape, *(1,) * (values.ndim - 2)), values, np.zeros((), values.dtype))
