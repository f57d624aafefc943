"""The meta-rollout: k attempts at one hidden task, as one Gymnasium episode.

This is the contract that every suite shares. ``reset`` draws a task and a variant; the agent then plays k
attempts and is never told which task it plays. Under the ``k-episode`` objective the return of all attempts
counts. Under ``k-shot`` only the last attempt pays; the agent sees the rewards of all attempts in its observations
(E-RL2, paper Appendix B).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mtbench.arguments import checked_choice, checked_count, checked_scales, checked_tasks, refuse_unknown
from mtbench.errors import UsageError, unknown_name_error
from mtbench.spaces import WithVector, action_index, box_action, one_hot
from mtbench.suite import Frame, Progress, Suite, Variants, load_suite

Objective = Literal["k-episode", "k-shot"]
AttemptReset = Literal["next-step", "same-step"]


# Phases of a rollout: they decide what the next `step` does. Plain integers, because reading an Enum costs 50 ns.
_NOT_RESET, _PLAYING, _BETWEEN, _OVER, _CLOSED = range(5)


class MetaRollout(gym.Env[Any, Any]):
    """k attempts at one hidden task of a suite.

    Between two attempts one step ignores its action and returns the next attempt's first observation with reward 0.
    With ``attempt_reset="same-step"`` there is no such step: the step that ends an attempt returns the next attempt's
    first observation and puts its own into ``info["final_attempt_obs"]``.

    The last step's ``info["rollout"]`` has one entry per attempt in ``returns`` (float64, default reward scale),
    ``lengths`` (int64, base steps; 0 where a time limit left an attempt unplayed) and, where the suite defines it,
    ``successes`` (bool).

    Args:
        suite: A suite's name, its import path ``"module:SUITE"``, or a :class:`~mtbench.suite.Suite`.
        split: ``"train"`` or ``"test"``, or another that the suite offers.
        tasks: Names of the tasks to play, also from the split's further tasks (``Split.extra_tasks``). None plays the
            split's tasks.
        k: Attempts per rollout.
        objective: ``"k-episode"`` pays all attempts. ``"k-shot"`` pays the last attempt only; every observation
            then includes the previous reward on the default scale, also in attempts that pay nothing. A float32
            vector gets one more number at its end, a Dict gets a key ``reward``, and an image becomes a Dict of
            ``image`` and ``reward``. Suites with ``Suite.shows_reward`` include the reward under every objective, so
            their observations do not change.
        reward_scales: Factors by task that multiply the rewards that the agent is paid. Statistics and observed
            rewards keep the default scale.
        clip_rewards: Clip the reward of each step to [-1, 1] before it is scaled and paid. Statistics and observed
            rewards are not clipped.
        attempt_reset: ``"next-step"`` or ``"same-step"``.
        expose_task_label: Put the task into ``info`` and a one-hot over the suite's tasks into the observation. This
            is for label-conditioned baselines; every record says so.
        max_steps: Truncate the rollout after this many steps. None sets no limit.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ValueError: An argument has an unknown value or is out of range.
        TypeError: An unknown argument.
        gymnasium.error.DependencyNotInstalled: The suite's packages are missing.

    Example:
        >>> import gymnasium as gym
        >>> env = gym.make("mtbench:MTPOPGym-v0", tasks=["RepeatFirstEasy"], k=1)
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, info
        ((30,), {})
        >>> env.unwrapped.task  # for evaluators, never for a policy
        'RepeatFirstEasy'
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's)

    def __init__(
        self,
        suite: str | Suite,
        *,
        split: str = "train",
        tasks: Sequence[str] | None = None,
        k: int = 1,
        objective: Objective = "k-episode",
        reward_scales: Mapping[str, float] | None = None,
        clip_rewards: bool = False,
        attempt_reset: AttemptReset = "next-step",
        expose_task_label: bool = False,
        max_steps: int | None = None,
        render_mode: str | None = None,
        **unknown_kwargs: Any,
    ) -> None:
        refuse_unknown(unknown_kwargs, keyword_arguments())
        self.suite: Final = load_suite(suite) if isinstance(suite, str) else suite
        self.split: Final = self.suite.split(split)
        self.tasks: Final = checked_tasks(self.suite, split, tasks)
        self.k: Final = checked_count("k", k)
        self.max_steps: Final = None if max_steps is None else checked_count("max_steps", max_steps)
        self.objective: Objective = checked_choice("objective", objective, ["k-episode", "k-shot"])
        self.attempt_reset: AttemptReset = checked_choice("attempt_reset", attempt_reset, ["next-step", "same-step"])
        self.reward_scales: Final = checked_scales(self.suite, reward_scales)
        self.metadata = {**self.metadata, "render_fps": self.suite.frames_per_second}
        self.render_mode: str | None = render_mode and checked_choice("render_mode", render_mode, ["rgb_array"])
        for name, flag in (("expose_task_label", expose_task_label), ("clip_rewards", clip_rewards)):
            if not isinstance(flag, bool):
                raise UsageError(f"`{name}` must be true or false, got {flag!r}.")
        self.expose_task_label: Final = expose_task_label
        self.clip_rewards: Final = clip_rewards
        self.suite.require_packages()

        self.observation_space: gym.Space[Any] = self.suite.observation_space(self.k)
        self.with_reward: WithVector | None = None
        self.with_label: WithVector | None = None
        if self.objective == "k-shot" and not self.suite.shows_reward:
            self.with_reward = with_reward(self.observation_space)
            self.observation_space = self.with_reward.space
        if expose_task_label:
            label = spaces.Box(0.0, 1.0, (len(self.suite.tasks),), dtype=np.float32)
            self.with_label = WithVector(self.observation_space, "task", label)
            self.observation_space = self.with_label.space
        self.action_space: gym.Space[Any] = self.suite.action_space()
        self._num_actions = int(self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else None
        self._has_success = self.suite.has_success
        self._games: dict[str, tuple[gym.Env[Any, Any], Any]] = {}  # base env and codec of each task played so far
        self._phase = _NOT_RESET
        self._replacements: np.random.Generator | None = None

    # ---- privileged: for evaluators, loggers and oracles, never for a policy ----

    @property
    def task(self) -> str:
        """Privileged: the task being played. Raises an AttributeError before the first reset."""
        return self._task

    @property
    def task_index(self) -> int:
        """Privileged: the task's place in the suite's order."""
        return list(self.suite.tasks).index(self._task)

    @property
    def variant(self) -> int:
        """Privileged: the variant of the current attempt."""
        return self._variants[self._progress.attempt]

    @property
    def base(self) -> gym.Env[Any, Any]:
        """Privileged: the base environment playing the current attempt."""
        return self._base

    @property
    def playing(self) -> bool:
        """Whether the next step plays its action. False between two attempts, before a reset and after the end."""
        return self._phase == _PLAYING

    def index_of(self, base_action: Any) -> int:
        """Privileged: the action of this environment that stands for the current task's `base_action`."""
        assert self._actions is not None
        return self._actions.index(base_action)

    # ---- not privileged: an agent may know these, and the RL2 wrapper reads them ----

    @property
    def attempt_start(self) -> bool:
        """Whether the latest observation is the first of its attempt."""
        return self._progress.attempt_start

    @property
    def attempt_reward(self) -> float:
        """The latest reward, clipped and scaled as for the agent, also in an attempt that pays nothing."""
        return self._on_agents_scale(self._progress.reward)

    # ---- Gymnasium ----

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a meta-rollout.

        Args:
            seed: Seeds every draw: task, variants, base environment, replacement of invalid actions.
            options: ``"task"`` pins the task by name. ``"variant"`` pins the variant. An int determines
                the variants of all attempts: on suites whose attempts play new variants, it seeds the draw of the
                later ones. A sequence of k ints sets the variant of each attempt.

        Raises:
            ValueError: An unknown option, task or variant.
        """
        # Check first: a refused reset must not disturb the current rollout.
        pinned_task, pinned_variant = self.checked_options(options) if options else (None, None)
        super().reset(seed=seed)
        rng = self.np_random
        drawn_task = self.tasks[int(rng.integers(len(self.tasks)))]
        drawn_variants = self._draw_variants(self.split.variants, rng)
        # Invalid actions are replaced from their own stream: actions must not change later tasks and variants.
        self._replacement_seed, self._replacements = int(rng.integers(2**31)), None
        self._task = drawn_task if pinned_task is None else pinned_task
        self._variants = drawn_variants if pinned_variant is None else self.pinned_variants(pinned_variant)

        if self._task not in self._games:
            task = self.suite.tasks[self._task]
            base = self.suite.make_base(task)
            self._games[self._task] = base, self.suite.codec(task, base)
        self._base, self._codec = self._games[self._task]
        self._actions: Sequence[Any] | None = self._codec.actions
        self._scale = self.reward_scales.get(self._task, 1.0)
        self._progress = Progress(self.k)
        self._returns = [0.0] * self.k
        self._lengths = [0] * self.k
        self._successes = [False] * self.k
        self._begin_attempt(0)
        return self._observe(self.suite.start(self._base, self._variants[0])), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one step; the class says what happens between two attempts.

        Args:
            action: Inside ``action_space``. An index that the current task does not have is replaced by a
                uniformly random valid one.

        Raises:
            gymnasium.error.InvalidAction: `action` is outside ``action_space``.
            gymnasium.error.ResetNeeded: No rollout has begun, or it is over.
            gymnasium.error.ClosedEnvironmentError: The environment was closed.
        """
        if self._phase != _PLAYING:
            return self._step_between_attempts()
        progress = self._progress
        observation, reward, terminated, truncated, info = self._base.step(self._base_action(action))
        reward = float(reward)
        attempt = progress.attempt
        progress.elapsed += 1
        progress.attempt_steps += 1
        progress.attempt_start = False
        progress.reward = reward
        self._returns[attempt] += reward
        self._lengths[attempt] += 1
        if self._has_success and self.suite.success(reward, info):
            self._successes[attempt] = True
        paid = self._on_agents_scale(reward) if self._paying else 0.0
        if terminated or truncated:
            return self._end_attempt(observation, paid, bool(terminated), bool(truncated))
        if progress.elapsed == self.max_steps:
            return self._end_rollout(self._observe(observation), paid, False, True)
        return self._observe(observation), paid, False, False, self._info()

    def render(self) -> Frame | None:
        """A picture of the current state, of the suite's ``frame_shape`` and dtype uint8. For people, not policies."""
        if self.render_mode is None:
            gym.logger.warn('Nothing to render: pass render_mode="rgb_array" to gym.make.')
            return None
        if self._phase in (_NOT_RESET, _CLOSED):
            raise gym.error.ResetNeeded("Call reset() before render().")
        return self.suite.render(self._base, self.suite.tasks[self._task], self._progress)

    def close(self) -> None:
        """Close every base environment made so far."""
        for base, _ in self._games.values():
            base.close()
        self._games.clear()
        self._phase = _CLOSED

    # ---- within a rollout ----

    def _on_agents_scale(self, reward: float) -> float:
        return (max(-1.0, min(1.0, reward)) if self.clip_rewards else reward) * self._scale

    def _begin_attempt(self, attempt: int) -> None:
        progress = self._progress
        progress.attempt = attempt
        progress.attempt_steps = 0
        progress.attempt_start = True
        self._paying = self.objective == "k-episode" or attempt == self.k - 1
        self._phase = _PLAYING

    def _start_next_attempt(self) -> Any:
        self._begin_attempt(self._progress.attempt + 1)
        return self._observe(self.suite.start(self._base, self.variant))

    def _step_between_attempts(self) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._phase == _CLOSED:
            raise gym.error.ClosedEnvironmentError("This environment was closed; make a new one.")
        if self._phase != _BETWEEN:
            why = "the meta-rollout is over" if self._phase == _OVER else "no meta-rollout has begun"
            raise gym.error.ResetNeeded(f"Call reset() before step(): {why}.")
        progress = self._progress
        progress.elapsed += 1
        progress.action_valid = True
        progress.reward = 0.0
        observation = self._start_next_attempt()
        if progress.elapsed == self.max_steps:
            return self._end_rollout(observation, 0.0, False, True)
        return observation, 0.0, False, False, self._info()

    def _end_attempt(
        self, observation: Any, paid: float, terminated: bool, truncated: bool
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        final = self._observe(observation)
        if self._progress.attempt == self.k - 1:
            if self.suite.single_attempt:
                return self._end_rollout(final, paid, terminated, truncated)
            return self._end_rollout(final, paid, True, False)
        if self._progress.elapsed == self.max_steps:
            return self._end_rollout(final, paid, False, True)
        if self.attempt_reset == "same-step":
            observation = self._start_next_attempt()
            return observation, paid, False, False, {**self._info(), "final_attempt_obs": final}
        self._phase = _BETWEEN
        return final, paid, False, False, self._info()

    def _end_rollout(
        self, observation: Any, paid: float, terminated: bool, truncated: bool
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._phase = _OVER
        rollout: dict[str, Any] = {
            "returns": np.array(self._returns, dtype=np.float64),
            "lengths": np.array(self._lengths, dtype=np.int64),
        }
        if self.suite.has_success:
            rollout["successes"] = np.array(self._successes, dtype=np.bool_)
        return observation, paid, terminated, truncated, {**self._info(), "rollout": rollout}

    def _base_action(self, action: Any) -> Any:
        """Translate the agent's action for the base environment. Replaces and records an invalid index."""
        if isinstance(self.action_space, spaces.Box):
            return box_action(action, self.action_space)
        if self._num_actions is None or self._actions is None:
            if not self.action_space.contains(action):
                raise gym.error.InvalidAction(f"{action!r} is outside the action space {self.action_space}.")
            return action
        index = action_index(action, self._num_actions)
        valid = index < len(self._actions)
        self._progress.action_valid = valid
        if not valid:
            if self._replacements is None:  # made on demand: most rollouts need no generator, and making one is slow
                self._replacements = np.random.default_rng(self._replacement_seed)
            index = int(self._replacements.random() * len(self._actions))
        return self._actions[index]

    def _observe(self, observation: Any) -> Any:
        encoded = self._codec.encode(observation, self._progress)
        if self.with_reward is not None:
            encoded = self.with_reward.join(encoded, np.array([self._progress.reward], dtype=np.float32))
        if self.with_label is not None:
            encoded = self.with_label.join(encoded, one_hot(self.task_index, len(self.suite.tasks)))
        return encoded

    def _info(self) -> dict[str, Any]:
        return {"task": self._task, "task_index": self.task_index} if self.expose_task_label else {}

    # ---- variants ----

    def _draw_variants(self, drawn_from: Variants, rng: np.random.Generator) -> list[int]:
        """Draw the variants of k attempts. This happens before any action, so actions cannot change them."""
        if self.suite.attempt_variants == "same":
            return drawn_from.sample(rng, 1) * self.k
        return drawn_from.sample(rng, self.k)

    def pinned_variants(self, pinned: int | list[int]) -> list[int]:
        """The variants of k attempts where a user pinned one or all of them."""
        if isinstance(pinned, list):
            return pinned
        if self.suite.attempt_variants == "same" or self.k == 1:
            return [pinned] * self.k
        drawn_from = next(part for part in self.split.parts if pinned in part)
        return [pinned, *self._draw_variants(drawn_from, np.random.default_rng(pinned))[1:]]

    # ---- checks ----

    def checked_options(self, options: dict[str, Any]) -> tuple[str | None, int | list[int] | None]:
        """Check the options of ``reset`` and return the pinned task and variant (or variants); None where not pinned.

        Raises:
            ValueError: An unknown option, task or variant.
        """
        for name in options:
            if name not in ("task", "variant"):
                raise unknown_name_error("reset option", name, ["task", "variant"], type(self).__name__)
        task = options.get("task")
        if task is not None and task not in self.tasks:
            where = f"split {self.split.name!r} of suite {self.suite.name!r}"
            subset = len(self.tasks) < len(self.split.tasks)
            raise unknown_name_error(
                "task", task, self.tasks, f"this environment's subset of {where}" if subset else where
            )
        variant = options.get("variant")
        if variant is None:
            return task, None
        if not isinstance(variant, (Sequence, np.ndarray)) or isinstance(variant, str):
            return task, self._checked_variant(variant)
        each = [self._checked_variant(v) for v in variant]
        if len(each) != self.k:
            raise UsageError(f"Pin one variant, or one for each of the {self.k} attempts, got {variant!r}.")
        return task, each

    def _checked_variant(self, variant: Any) -> int:
        value = int(variant) if isinstance(variant, (int, np.integer)) else variant
        if not any(value in part for part in self.split.parts):
            drawn, evaluated = self.split.variants, self.split.evaluation
            raise UsageError(
                f"Variant {variant!r} is not in split {self.split.name!r}: give an integer in {drawn} or, for "
                f"evaluation, {evaluated}."
            )
        return int(value)


def with_reward(space: gym.Space[Any]) -> WithVector:
    """Adds the previous reward to the observations of a space; an image's key is then ``image``."""
    image = isinstance(space, spaces.Box) and len(space.shape) == 3
    reward = spaces.Box(-np.inf, np.inf, (1,), dtype=np.float32)
    return WithVector(space, "reward", reward, key="image" if image else "observation")


def keyword_arguments() -> list[str]:
    """The names :class:`MetaRollout` takes after its suite."""
    return list(inspect.signature(MetaRollout.__init__).parameters)[2:-1]
