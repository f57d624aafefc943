"""The meta-rollout contract for a batch; :mod:`mtbench.rollout` has it for one environment.

Sub-environment i plays bit for bit the same rollouts as a :class:`~mtbench.rollout.MetaRollout` with the same seed, for
any number of environments and threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Final, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, create_empty_array

from mtbench.errors import UsageError
from mtbench.rollout import AttemptReset, MetaRollout, Objective
from mtbench.spaces import action_index, box_action
from mtbench.suite import VariantList, VariantRange
from mtbench.vector import loops, streams
from mtbench.vector.arguments import checked_mask, checked_seeds
from mtbench.vector.engine import PROGRESS, Array, Batch, Engine, cpus, shares
from mtbench.vector.forks import OwnProcess
from mtbench.vector.infos import add, only, row

_MODES = {
    AutoresetMode.NEXT_STEP: loops.NEXT_STEP,
    AutoresetMode.SAME_STEP: loops.SAME_STEP,
    AutoresetMode.DISABLED: loops.NEVER,
}


class VectorMetaRollout(gym.vector.VectorEnv[Any, Any, Any]):
    """N meta-rollouts, each of its own task.

    Rewards are float64, flags bool, all of shape ``(N,)``. Where rollouts end, ``info["rollout"]`` has ``returns``,
    ``lengths`` and, where the suite defines it, ``successes`` of shape ``(N, k)``, with Gymnasium's masks.

    ``reset`` takes the ``options`` of a single environment and applies them to all. It also takes N names as
    ``"task"``, ``(N, k)`` or ``(N, 1)`` integers as ``"variant"``, and N bools as ``"reset_mask"``: only environments
    whose bool is True are reset.

    Args:
        one: A single environment with the same arguments. It has checked them; it provides spaces and checks options.
        engine: The class of the engine that plays the attempts.
        num_envs: Number of environments, N.
        autoreset_mode: Gymnasium's autoreset mode.
        num_workers: Number of workers; None chooses it from the CPU count and N.
        copy: False hands out the same observation array at every step.
    """

    def __init__(
        self,
        one: MetaRollout,
        engine: type[Engine],
        num_envs: int,
        autoreset_mode: AutoresetMode,
        num_workers: int | None,
        copy: bool,
    ) -> None:
        self.num_envs = num_envs
        self.metadata: dict[str, Any] = {**one.metadata, "autoreset_mode": autoreset_mode}
        self.autoreset_mode = autoreset_mode  # SyncVectorEnv has this attribute too, and TorchRL reads it
        self.render_mode: str | None = None
        self.suite: Final = one.suite
        self.split: Final = one.split
        self.tasks: Final = one.tasks
        self.k: Final = one.k
        self.objective: Objective = one.objective
        self.attempt_reset: AttemptReset = one.attempt_reset
        self.expose_task_label: Final = one.expose_task_label
        self.single_observation_space: gym.Space[Any] = one.observation_space
        self.single_action_space: gym.Space[Any] = one.action_space
        self.observation_space: gym.Space[Any] = batch_space(one.observation_space, num_envs)
        self.action_space: gym.Space[Any] = batch_space(one.action_space, num_envs)
        self._one, self._copy, self._mode = one, copy, _MODES[autoreset_mode]
        #: Only with autoreset disabled: finished rollouts ignore steps until they are reset, and do not refuse them.
        self.lets_finished_wait = False
        self._process = OwnProcess()

        n, k, names = num_envs, one.k, list(one.suite.tasks)
        self._names = np.array(names, dtype=object)
        self._drawn_from = np.array([names.index(task) for task in one.tasks], dtype=np.int64)
        self._scales = np.array([one.reward_scales.get(name, 1.0) for name in names])
        self._engine = engine(one.suite, n, k)
        self._streams = np.zeros(n, streams.STREAM)  # for drawing tasks and variants
        self._replacements = np.zeros(n, streams.STREAM)  # for replacing invalid actions
        self._seeded = False
        self._progress = np.zeros(n, PROGRESS)
        self._task, self._begins = np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int64)
        self._variants = np.zeros((n, k), dtype=np.int64)
        self._returns, self._lengths = np.zeros((n, k)), np.zeros((n, k), dtype=np.int64)
        self._statistics = {"returns": self._returns, "lengths": self._lengths}
        if one.suite.has_success:
            self._statistics["successes"] = np.zeros((n, k), dtype=np.bool_)
        # Buffers of a step: actions for the engine (-1 for none), its results, and what begins next.
        self._played = np.full(n, -1, dtype=np.int64)
        box = self.action_space if isinstance(self.action_space, gym.spaces.Box) else None
        self._moves = None if box is None else np.full(box.shape, np.nan, dtype=box.dtype)
        self._any_move = np.zeros(n, dtype=np.int64)
        self._follows, self._renews = np.zeros((2, n), dtype=np.int8)
        self._next = np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int64)  # predicted tasks and variants
        self._earned = np.zeros(n)
        self._base_over = np.zeros((2, n), dtype=np.bool_)
        self._observations = self._empty()
        self._rules = (
            k,
            one.objective == "k-shot",
            -1 if one.max_steps is None else one.max_steps,
            one.suite.single_attempt,
            loops.SAME_STEP if one.attempt_reset == "same-step" else loops.NEXT_STEP,
            one.clip_rewards,
            self._mode != loops.NEVER,
        )
        self._same_variant = one.suite.attempt_variants == "same"
        variants = one.split.variants
        listed = variants.values if isinstance(variants, VariantList) else ()
        first = variants.start if isinstance(variants, VariantRange) else 0
        self._drawn_variants = first, len(variants), np.array(listed, dtype=np.int64)
        workers = min(n, num_workers or max(1, min(cpus(), n // self._engine.envs_per_worker)))
        self._engine.workers = workers
        self._chunks = [(0, n)] if self._engine.spreads else shares(n, workers)
        self._pool = self._threads()
        # Compile everything now, with a step of zero environments, so that the first real step is not slow.
        none, over = np.zeros(n), self._base_over
        actions = self._played if self._moves is None else self._moves
        self._step_chunk(0, 0, actions, none, over[0], over[1], self._observations, None, None)
        loops.refused(self._progress[:0], self._played[:0], 0, 0)

    # ---- privileged: for evaluators, loggers and oracles, never for a policy ----

    @property
    def task_index(self) -> Array:
        """Privileged: ``(N,)`` int64, each environment's task in the suite's order."""
        task: Array = self._task.copy()
        return task

    @property
    def variant(self) -> Array:
        """Privileged: ``(N,)`` int64, the variants of the current attempts."""
        variant: Array = self._variants[np.arange(self.num_envs), self._progress["attempt"]]
        return variant

    @property
    def streams(self) -> Array:
        """Privileged: the random streams that tasks and variants are drawn from; see :mod:`mtbench.vector.resuming`."""
        return self._streams

    # ---- Gymnasium ----

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin meta-rollouts.

        Args:
            seed: An integer gives environment i the seed ``seed + i``; a sequence gives it the i-th of N seeds.
            options: See the class.

        Raises:
            ValueError: An unknown option, task or variant, or a wrong number of seeds.
        """
        if self.closed or not self._process.is_current:
            raise self._unusable()
        options = dict(options or {})
        mask = checked_mask(options.pop("reset_mask", None), self.num_envs)
        which = np.flatnonzero(mask).tolist()
        pinned = self._checked_options(options, which)
        seeds = checked_seeds(seed, self.num_envs)
        if not self._seeded and (None in seeds or not mask.all()):
            for i, entropy in enumerate(np.random.SeedSequence().spawn(self.num_envs)):
                streams.set_state(self._streams[i], np.random.default_rng(entropy))
        self._seeded = True
        for i in which:
            number = seeds[i]
            if isinstance(number, int) and 0 <= number < 2**32:  # as below, without making a generator
                loops.seed_one(self._streams, i, number)
            elif number is not None:
                streams.set_state(self._streams[i], gym.utils.seeding.np_random(number)[0])
        self._follows[:] = np.where(mask, loops.NEXT_ROLLOUT, loops.GOES_ON)
        self._begin_next(0, self.num_envs, self._follows)
        for i in which:
            task, variants = pinned(i)
            if task is not None:
                self._task[i] = task
            if variants is not None:
                self._variants[i] = variants
                self._begins[i] = variants[0]
        out = self._empty() if self._copy else self._observations
        self._spread(self._start_chunk, out)
        return out, self._labels(mask, self._task)

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Play one step in every environment, as :meth:`MetaRollout.step` does in one.

        Args:
            actions: ``(N,)`` integers, or ``(N, ...)`` floats in a Box.

        Raises:
            gymnasium.error.InvalidAction: An action is outside ``single_action_space``. Nothing has been played.
            gymnasium.error.ResetNeeded: A rollout has not begun, or is over with autoreset disabled. Nothing has been
                played.
            gymnasium.error.ClosedEnvironmentError: The environment was closed.
            gymnasium.error.Error: This process was forked from the one that made it.
        """
        if self.closed or not self._process.is_current:
            raise self._unusable()
        actions = self._checked_actions(actions)
        n = self.num_envs
        reward, terminated, truncated = np.empty(n), np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.bool_)
        out = self._empty() if self._copy else self._observations
        # With same-step resets, infos hold the last observations of attempts (`folded`) and of rollouts (`finals`).
        folded = self._empty() if self.attempt_reset == "same-step" else None
        finals = self._empty() if self._mode == loops.SAME_STEP else None
        task = self._task.copy()
        self._spread(self._step_chunk, actions, reward, terminated, truncated, out, folded, finals)
        return out, reward, terminated, truncated, self._infos(terminated | truncated, task, folded, finals)

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the threads and close the engine. Does nothing in a forked process: both are the parent's."""
        if not self._process.is_current:
            return
        if self._pool:
            self._pool.shutdown()
        self._engine.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}

    def __setstate__(self, content: dict[str, Any]) -> None:
        self.__dict__.update(content)
        self._pool = self._threads()

    # ---- a step, chunk by chunk ----

    def _threads(self) -> ThreadPoolExecutor | None:
        return ThreadPoolExecutor(len(self._chunks) - 1, "mtbench") if len(self._chunks) > 1 else None

    def _spread(self, work: Callable[..., None], *arguments: Any) -> None:
        """Run `work` on every chunk, each in its own thread."""
        if self._pool is None:
            work(*self._chunks[0], *arguments)
            return
        waiting = [self._pool.submit(work, *chunk, *arguments) for chunk in self._chunks[1:]]
        try:
            work(*self._chunks[0], *arguments)
        finally:
            wait(waiting)
        for future in waiting:
            future.result()

    def _start_chunk(self, begin: int, end: int, out: Batch) -> None:
        self._start(begin, end)
        self._observe(begin, end, out)

    def _step_chunk(
        self,
        begin: int,
        end: int,
        actions: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        out: Batch,
        folded: Batch | None,
        finals: Batch | None,
    ) -> None:
        chunk, progress = (begin, end), self._progress
        counts, kept = self._engine.num_actions, (self._returns, self._lengths)
        given = actions if self._moves is None else self._any_move
        loops.before(*chunk, progress, self._replacements, self._task, counts, given, self._played, *kept)
        self._engine.step(*chunk, self._engine_actions(*chunk, actions), self._earned, *self._base_over)
        if "successes" in self._statistics:
            loops.record_success(*chunk, progress, self._played, self._engine.success, self._statistics["successes"])
        base_terminated, base_truncated = self._base_over
        base = (self._earned, base_terminated, base_truncated, self._task, self._scales)
        loops.after(*chunk, progress, *base, *kept, self._follows, reward, terminated, truncated, self._rules)
        if folded is not None:
            self._observe(*chunk, folded)
        self._advance(*chunk, self._follows)
        if finals is not None:
            self._observe(*chunk, finals)
            ended = terminated[begin:end] | truncated[begin:end]
            self._renews[begin:end] = np.where(ended, loops.NEXT_ROLLOUT, loops.GOES_ON)
            self._advance(*chunk, self._renews)
        self._observe(*chunk, out)

    def _engine_actions(self, begin: int, end: int, actions: Array) -> Array:
        """The actions in the engine's format: -1, or NaN in a Box, where no action is played."""
        if self._moves is None:
            return self._played
        self._moves[begin:end] = actions[begin:end]
        self._moves[begin:end][self._played[begin:end] < 0] = np.nan
        return self._moves

    def _advance(self, begin: int, end: int, follows: Array) -> None:
        self._begin_next(begin, end, follows)
        self._start(begin, end)

    def _start(self, begin: int, end: int) -> None:
        self._engine.start(begin, end, self._task, self._begins)
        if self._engine.prepares and self._mode != loops.NEVER:
            drawn = (self._drawn_from, *self._drawn_variants, *self._next)
            loops.predict_next(begin, end, self._progress, self._streams, self._begins, *drawn)
            self._engine.prepare(begin, end, *self._next)

    def _begin_next(self, begin: int, end: int, follows: Array) -> None:
        drawn = (self._drawn_from, *self._drawn_variants, self._same_variant)
        slots = (self._progress, self._streams, self._replacements, follows, self._task, self._variants, self._begins)
        loops.begin_next(begin, end, *slots, *drawn)

    def _observe(self, begin: int, end: int, out: Batch) -> None:
        """Write the observations, with the label and previous reward that :class:`MetaRollout` adds."""
        chunk = slice(begin, end)
        if self._one.with_label is not None:
            out, label = self._one.with_label.split(out)
            label[chunk] = 0.0
            label[np.arange(begin, end), self._task[chunk]] = 1.0
        if self._one.with_reward is not None:
            out, reward = self._one.with_reward.split(out)
            reward[chunk, 0] = self._progress["reward"][chunk]
        self._engine.observe(begin, end, self._progress, out)

    def _empty(self) -> Batch:
        return cast(Batch, create_empty_array(self.single_observation_space, self.num_envs, np.empty))

    @property
    def attempt_began(self) -> Array:
        """``(num_envs,)`` bool: in which rows an attempt began with the latest step or reset."""
        return np.asarray(self._follows != loops.GOES_ON)

    def latest_step(self, task: Array) -> tuple[Array, Array, Array]:
        """What the latest step did in each row, for wrappers that add the inputs of RL^2.

        Args:
            task: :attr:`task_index` before that step.

        Returns:
            Arrays of shape ``(num_envs,)``: whether the action was played (bool); the reward on the agent's scale, also
            in attempts that pay nothing (float64); whether an attempt began (bool).
        """
        played = self._played >= 0
        earned = np.where(played, self._earned, 0.0)
        clipped = np.clip(earned, -1.0, 1.0) if self._one.clip_rewards else earned
        return played, clipped * self._scales[task], self.attempt_began

    # ---- infos, laid out as gymnasium.vector.VectorEnv does ----

    def _infos(self, ended: Array, task: Array, folded: Batch | None, finals: Batch | None) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        if folded is not None:
            at = self._follows == loops.NEXT_ATTEMPT
            if at.any():
                add(infos, "final_attempt_obs", only(folded, at), at)
        if ended.any():
            rollout: dict[str, Any] = {}
            for name, values in self._statistics.items():
                add(rollout, name, only(values, ended), ended)
            if finals is not None:
                rows = np.full(self.num_envs, None, dtype=object)
                for i in np.flatnonzero(ended).tolist():
                    rows[i] = row(finals, i)
                last = self._labels(ended, task)
                add(last, "rollout", rollout, ended)
                add(infos, "final_obs", rows, ended)
                add(infos, "final_info", last, ended)
            else:
                add(infos, "rollout", rollout, ended)
        if self.expose_task_label:
            infos.update(self._labels(np.ones(self.num_envs, dtype=np.bool_), self._task))
        return infos

    def _labels(self, mask: Array, task: Array) -> dict[str, Any]:
        labels: dict[str, Any] = {}
        if self.expose_task_label and mask.any():
            add(labels, "task", np.where(mask, self._names[task], np.array(None)), mask)
            add(labels, "task_index", np.where(mask, task, 0), mask)
        return labels

    # ---- checks ----

    def _unusable(self) -> Exception:
        if self.closed:
            return gym.error.ClosedEnvironmentError("This environment was closed; make a new one.")
        return gym.error.Error(
            "This vector environment was made before os.fork(), and its threads and processes stayed with the parent. "
            'Make it in the new process, or start processes by "spawn" or "forkserver".'
        )

    def _checked_options(
        self, options: dict[str, Any], which: list[int]
    ) -> Callable[[int], tuple[int | None, list[int] | None]]:
        """Check the options; returns a function from an environment's index to its pinned task and variants."""
        n = self.num_envs
        task: Any = options.get("task")
        variant: Any = options.get("variant")
        many_tasks = task is not None and not isinstance(task, str)
        many_variants = variant is not None and np.ndim(variant) == 2
        for name, value, many in (("task", task, many_tasks), ("variant", variant, many_variants)):
            if many and len(value) != n:
                raise UsageError(f"`{name}` pins {len(value)} environments, but there are {n}.")

        def checked(i: int) -> tuple[int | None, list[int] | None]:
            one = dict(options)
            if many_tasks:
                one["task"] = task[i]
            if many_variants:
                one["variant"] = variant[i] if len(variant[i]) > 1 else variant[i][0]
            name, pinned = self._one.checked_options(one)
            index = None if name is None else list(self.suite.tasks).index(name)
            return index, None if pinned is None else self._one.pinned_variants(pinned)

        if many_tasks or many_variants:
            each = {i: checked(i) for i in which}  # check all before anything changes
            return each.__getitem__
        all_alike = checked(0)
        return lambda i: all_alike

    def _checked_actions(self, actions: Any) -> Array:
        mode = loops.WAIT if self.lets_finished_wait and self._mode == loops.NEVER else self._mode
        if isinstance(self.single_action_space, gym.spaces.Discrete):
            given = np.asarray(actions)
            if given.shape != (self.num_envs,) or given.dtype.kind not in "iu":
                raise gym.error.InvalidAction(
                    f"Give {self.num_envs} integers, one for each environment, not {actions!r}."
                )
            limit = int(self.single_action_space.n)
            converted = np.ascontiguousarray(given, dtype=np.int64)
            i = loops.refused(self._progress, converted, limit, mode)
            if i >= 0 and self._progress[i]["phase"] == loops.PLAYING:
                action_index(given[i], limit)
        else:
            converted = box_action(actions, self.action_space, self._progress["phase"] == loops.PLAYING)
            i = loops.refused(self._progress, self._any_move, 1, mode)
        if i >= 0:
            over = self._progress[i]["phase"] == loops.OVER
            why = f"the meta-rollout of environment {i} is over" if over else "no meta-rollout has begun"
            raise gym.error.ResetNeeded(f"Call reset() before step(): {why}.")
        return converted
