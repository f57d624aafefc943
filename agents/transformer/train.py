"""The training loop: collect, learn, log, evaluate, checkpoint; the same command resumes.

Work is counted in updates and done in rounds. In ``sync`` mode collecting and learning take turns and everything is
exactly repeatable; otherwise a background thread collects with a copy of the weights while the learner learns. A
checkpoint changes nothing: a resumed run goes on in the middle of its unfinished rollouts, and in ``sync`` mode it is
the same run as an uninterrupted one.
"""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from mtbench.errors import UsageError
from mtbench.files import full_disk_explained
from mtbench.jobs import ShardPlayer
from mtbench.locking import FolderLock
from mtbench.policy import Policy

from ..training import checkpoint
from ..training.folder import claim, drop_evaluations, tidy
from ..training.run_log import Logger, RunLog, flat, make_loggers
from ..training.settings import to_dict
from ..training.validation import Stopped, keep_if_best, stoppable, validated
from . import shards
from .collecting import Collecting, Collects, make_collector, make_envs
from .config import TrainConfig, read_config
from .distributed import ALONE, Ranks, share_of
from .evaluating import evaluated_together
from .learner import Learner, Totals
from .model import AgentModel
from .policy import TransformerPolicy
from .prefetch import batches
from .replay import Replay, Rollout
from .slices import Prepared
from .throughput import wait

OnRound = Callable[[dict[str, Any]], None]

# A larger share of clipped targets than this is worth a warning.
_CLIPPED = 0.01


class Trainer:
    """One training run in a folder.

    The folder is locked until :meth:`run` or :meth:`close` returns: no other process can train in it.

    Args:
        config: All settings.
        folder: ``config.json``, ``log.jsonl``, ``checkpoints/``, ``replay/`` and ``evaluations/`` live here, and
            ``best/``: the agent at the best of these evaluations, a run to evaluate like any other. If it holds a run
            with these settings, that run goes on.
        ranks: The processes that train together. Each of them has a trainer; that of rank 0 alone writes files, but for
            the shards of the replay. Their folder is on a disk that all of them see.
        address: Of the Ray cluster, for ``config.collectors``, as for :func:`mtbench.clusters.joined`.

    Raises:
        UsageError: The folder holds a run with other settings or a checkpoint that does not fit, another process trains
            in it, the disk is full, or the ranks cannot share the environments and the batch evenly.
    """

    model: AgentModel
    learner: Learner
    collector: Collects
    replay: Replay
    log: RunLog

    def __init__(self, config: TrainConfig, folder: Path, ranks: Ranks = ALONE, address: str | None = None) -> None:
        self.config: Final = config
        self.folder: Final = folder
        self.ranks: Final = ranks
        self._address = address
        self._own = share_of(config, ranks)  # the part of this rank
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.device: Final = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.stop: Final = threading.Event()
        self.steps: int = 0  # of all ranks, when the latest round or checkpoint was finished
        with full_disk_explained(folder):
            self._lock = ranks.first(lambda: FolderLock(folder, "trains in"))
            try:
                self._set_up()
            except BaseException:
                if hasattr(self, "collector"):
                    self.collector.close()
                self._unlock()
                raise

    def _set_up(self) -> None:
        config, folder, ranks, collect = self.config, self.folder, self.ranks, self._own.collect
        envs = make_envs(self._own)
        spaces = envs.single_observation_space, envs.single_action_space
        self._spaces = str(spaces)
        self.model = AgentModel.seeded(config.seed, config.model, config.learning, *spaces)
        self._loggers = ranks.first(self._claimed) or []
        ranks.together(self._see_folder)
        self.learner = Learner(
            self.model, config.learning, config.seed, self.device, config.updates, config.model.context, ranks
        )
        self.collector = make_collector(self._own, envs, self.learner, self._address)
        self._collecting = Collecting(self._own, self.collector, self.learner, self.stop, self._stopping, self._keep)
        turnover = int(collect.steps_per_update * config.round_updates * config.checkpoint_rounds)
        place, kept = shards.replay_folder(folder, ranks.rank, ranks.count), collect.replay_rollouts
        self.replay = ranks.together(lambda: Replay(collect.replay, *self.collector.examples, place, turnover, kept))
        self._replay_lock = threading.Lock()  # the collector adds while the learner samples
        self._returns: deque[Any] = deque(maxlen=-(-200 // ranks.count))
        self._unreported: dict[str, Any] | None = None  # numbers of a finished round that was not evaluated or logged
        self._saved: int | None = None  # updates of the newest checkpoint
        self._warned_of_clipping = False
        self.log = RunLog(folder / "log.jsonl")
        self._resume()

    def _claimed(self) -> list[Logger]:
        """Make the folder this run's, on rank 0, and open its logs."""
        claim(self.folder, self.config, read_config)
        tidy(self.folder, self.config, read_config)
        return make_loggers(self.config.loggers, self.folder, to_dict(self.config))

    def _see_folder(self) -> None:
        if not (self.folder / "config.json").exists():
            raise UsageError(
                f"Rank {self.ranks.rank} does not see {self.folder}, where rank 0 writes: the run's folder must be on "
                "a disk that all machines share. Give another one with --out."
            )

    @property
    def parameters(self) -> int:
        """Optimized parameters."""
        return sum(parameter.numel() for parameter in self.model.optimized())

    # ---- what the command line shows; see training/agents.py ----

    unit = "updates"

    @property
    def about(self) -> str:
        """The model and where it runs."""
        count = self.ranks.count
        return f"{self.parameters:,} parameters on {f'{count} ranks, each on ' if count > 1 else ''}{self.device}"

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.ranks.rank == 0

    @property
    def total(self) -> int:
        """Updates in all."""
        return self.config.updates

    @property
    def done(self) -> int:
        """Updates so far."""
        return self.learner.updates

    # ---- the loop ----

    def run(self, on_round: OnRound | None = None) -> bool:
        """Train until ``config.updates`` are done, or until ``stop`` is set (by a signal handler, say).

        Args:
            on_round: Called with the numbers of each round.

        Returns:
            Whether the run is complete. A stopped one has a checkpoint of all its updates.

        Raises:
            NonFiniteLossError: A loss is NaN or infinite, on any rank; the last checkpoint is from before it.
            DiskFullError: The last checkpoint is from before it.
        """
        try:
            with full_disk_explained(self.folder):
                return self._run(on_round or (lambda numbers: None))
        finally:
            self.close()

    def close(self) -> None:
        """Close the environments and the replay, and unlock the folder."""
        self.collector.close()
        self.replay.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _stopping(self) -> bool:
        """Whether the run is to stop: all ranks do as soon as one of them is told to."""
        if self.ranks.any(self.stop.is_set()):
            self.stop.set()
            return True
        return False

    def _run(self, on_round: OnRound) -> bool:
        self._collecting.first(lambda: len(self.replay) > 0)
        while self._unreported is not None or self.learner.updates < self.config.updates:
            if self._unreported is None and not self._stopping():
                numbers = self._round()
                if self.learner.updates % self.config.round_updates == 0 or self._is_last():
                    self._unreported = numbers
            if self._stopping() or not self._report(on_round):
                if self._saved != self.learner.updates or not self.learner.updates:
                    self.save()
                return False
        return True

    def _is_last(self) -> bool:
        return self.learner.updates >= self.config.updates

    def _report(self, on_round: OnRound) -> bool:
        """Evaluate, log and save as is due after a whole round; False where the run is to stop before that is done."""
        c, numbers = self.config, dict(self._unreported or {})
        self._warn_of_clipping(numbers.get("clipped", 0.0))
        rounds = self.learner.updates // c.round_updates
        if c.evaluate_rounds and (rounds % c.evaluate_rounds == 0 or self._is_last()):
            try:
                numbers.update(self._evaluate())
            except Stopped:
                return False
        self.ranks.first(lambda: self._log(numbers))
        self._unreported = None
        if rounds % c.checkpoint_rounds == 0 or self._is_last():
            self.save()
        on_round(numbers)
        return True

    def _log(self, numbers: dict[str, Any]) -> None:
        self.log.write(numbers)
        for logger in self._loggers:
            logger(self.steps, dict(flat(numbers)))

    def _warn_of_clipping(self, share: float) -> None:
        """Say once in a run that returns do not fit between the bins: values beyond them cannot be learnt."""
        if share > _CLIPPED and not self._warned_of_clipping:
            self._warned_of_clipping = True
            warnings.warn(
                f"{share:.1%} of the critic's targets are beyond its bins and are clipped: raise model.bin_limit "
                f"({self.config.model.bin_limit:g}) or lower learning.reward_multiplier "
                f"({self.config.learning.reward_multiplier:g}) in a new run.",
                stacklevel=2,
            )

    def _round(self) -> dict[str, Any]:
        c = self.config
        before, steps_before = self.learner.updates, self.collector.steps
        began, cpu_began = time.monotonic(), time.process_time()
        goal = min(before + c.round_updates - before % c.round_updates, c.updates)
        totals = Totals()
        learning = 0.0
        tokens = 0
        for turn in self._collecting.turns(goal - before):
            started = time.monotonic()
            for prepared in self._batches(turn):
                tokens += prepared.tokens
                totals.add(self.learner.update(prepared))
                if not c.sync and self.learner.updates % c.collect.refresh_updates == 0:
                    self.collector.renew(self.learner.acting, self.learner.updates)
                if self._stopping():
                    break
            wait(self.device)
            learning += time.monotonic() - started
        means = totals.read()
        updates, seconds = self.learner.updates - before, time.monotonic() - began
        every = self.ranks.gathered((self.collector.steps, self.collector.steps - steps_before, list(self._returns)))
        self.steps, taken = sum(one[0] for one in every), sum(one[1] for one in every)
        returns = np.array([value for one in every for value in one[2]])
        return {
            "updates": self.learner.updates,
            "steps": self.steps,
            "seconds": round(seconds, 3),
            "cpu_seconds": round(time.process_time() - cpu_began, 3),
            "updates_per_second": round(updates / max(learning, 1e-9), 3),
            "tokens_per_second": round(tokens / max(learning, 1e-9), 1),
            "flop_utilization": round(self.learner.flop_utilization(tokens / max(learning, 1e-9)), 4),
            "steps_per_second": round(taken / seconds, 1),
            "epsilon": round(self.collector.epsilon, 4),
            **self.collector.numbers(),
            "returns": [round(float(v), 4) for v in returns.mean(axis=0)] if len(returns) else [],
            **{name: round(mean, 6) for name, mean in means.items()},
        }

    def _batches(self, count: int) -> Iterator[Prepared]:
        """Batches for the next `count` updates; on a GPU, the next ones are sent there while one is learnt from."""
        c, context = self._own.learning, self.config.model.context

        def sample(update: int) -> Prepared:
            # Drawn from a stream of the update's own, for the sake of resuming.
            rng = np.random.default_rng(np.random.SeedSequence([self._own.seed, 1, update]))
            with self._replay_lock:
                batch = self.replay.sample(
                    *(c.batch_size, context, rng, c.recency, c.balance_tasks, c.best_return),
                    *(c.shortest_slice, c.batch_timesteps),
                )
            return self.learner.prepare(batch)

        updates = range(self.learner.updates, self.learner.updates + count)
        return batches(sample, updates, self.device)

    def _keep(self, rollout: Rollout, returns: Any) -> None:
        with self._replay_lock:
            self.replay.add(rollout)
        if returns is not None:
            self._returns.append(returns)

    def _evaluate(self) -> dict[str, Any]:
        """Play validation cases. All ranks play; rank 0 has the result."""
        name, acting = self.folder.resolve().name, self.learner.acting
        policy = stoppable(TransformerPolicy(acting, self.device, name, self.config.seed, self.steps), self.stop)
        return evaluated_together(self.ranks, policy, lambda player: self._validate(policy, player)) or {}

    def _validate(self, policy: Policy, player: ShardPlayer | None) -> dict[str, Any]:
        means = validated(policy, self.folder, self.learner.updates, self.config, player)

        def state() -> dict[str, Any]:
            return {**self._weights(), "steps": self.steps, "spaces": self._spaces}

        keep_if_best(self.folder, self.config, self.learner.updates, means, state)
        return {"evaluation": {task: round(value, 4) for task, value in means.items()}}

    # ---- checkpoints ----

    def _weights(self) -> dict[str, Any]:
        weights = {"model": self.model.state_dict()}
        if self.learner.acting is not self.model:
            weights["acting"] = self.learner.acting.state_dict()
        return weights

    def save(self) -> None:
        """Write a checkpoint of all ranks."""
        own = {**self.ranks.together(self.replay.state), **self.collector.state()}
        self.steps = sum(self.ranks.gathered(self.collector.steps))
        entries, collected = shards.packed(self.ranks, own, list(self._returns))
        state = {
            **self._weights(),
            "optimizer": self.learner.optimizer.state_dict(),
            "updates": self.learner.updates,
            "steps": self.steps,
            **entries,
            "spaces": self._spaces,
            "unreported": json.dumps(self._unreported),
            "warned_of_clipping": self._warned_of_clipping,
        }
        folder, keep = self.folder / "checkpoints", self.config.keep_checkpoints
        self.ranks.first(lambda: checkpoint.save(folder, self.learner.updates, state, collected, keep))
        self.replay.guard()
        self._saved = self.learner.updates

    def _resume(self) -> None:
        found = self.ranks.together(lambda: checkpoint.newest(self.folder / "checkpoints"))
        if found is None:
            self.ranks.first(lambda: self.log.cut(0))
            return
        path, state, collected = found
        if state["spaces"] != self._spaces:
            raise UsageError(f"{path} was trained on other spaces: {state['spaces']}, not {self._spaces}.")
        self.model.load_state_dict(state["model"])
        if self.learner.acting is not self.model:
            self.learner.acting.load_state_dict(state["acting"])
        self.learner.optimizer.load_state_dict(state["optimizer"])
        self._saved = self.learner.updates = state["updates"]
        self._unreported = json.loads(state.get("unreported", "null"))
        self._warned_of_clipping = state.get("warned_of_clipping", False)
        self.steps = state["steps"]
        self.collector.steps = self.steps // self.ranks.count
        parts = shards.unpacked(state, collected)
        moved = len(parts) != self.ranks.count
        self.collector.renew(self.learner.acting, self.learner.updates)
        self._load_part(parts, moved)
        if moved:
            self.save()
        self.ranks.first(self._drop_later)

    def _load_part(self, parts: list[dict[str, Any]], moved: bool) -> None:
        """Go on with this rank's replay and unfinished rollouts."""
        if moved:
            examples = self.collector.examples
            shards.redistribute(self.folder, parts, self.replay, examples, self.ranks)
            part = shards.redivided(parts, self.ranks, self._own.seed)
        else:
            part = parts[self.ranks.rank]
            self.ranks.together(lambda: self.replay.load_state(part))
        self._returns.extend(part["returns"])
        self.collector.resume(part)

    def _drop_later(self) -> None:
        """Remove from the folder what is not of the checkpoint that the run goes on from."""
        # Updates after the checkpoint are repeated; they differ where collecting and learning run side by side.
        self.log.cut(self.learner.updates - (self._unreported is not None))
        drop_evaluations(self.folder, self.learner.updates)
        shards.drop_others(self.folder, self.ranks.count)
