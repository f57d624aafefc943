"""The training loop: collect, learn, log, evaluate, checkpoint; the same command goes on where it stopped.

Work is counted in updates and done in rounds. In ``sync`` mode collecting and learning take turns and everything is
exactly repeatable; otherwise a background thread collects with a copy of the weights while the learner learns. A
checkpoint restarts the environments from a seed fixed by its number, so a resumed run and an uninterrupted one are the
same run.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from mtbench.errors import UsageError
from mtbench.evaluation import evaluate
from mtbench.records import write_json
from mtbench.scoring.references import load_references
from mtbench.scoring.scored import mean_scores

from . import checkpoint
from .collector import Collector
from .config import TrainConfig, read_config, to_dict
from .learner import Learner, Slices
from .model import AgentModel
from .policy import TransformerPolicy
from .replay import Replay, prefetched
from .run_log import RunLog, flat, make_loggers

OnRound = Callable[[dict[str, Any]], None]

# Sync mode takes turns this often, so that collecting never lags far behind learning.
_TURN = 20


class Trainer:
    """One training run in a folder.

    Args:
        config: All settings.
        folder: ``config.json``, ``log.jsonl``, ``checkpoints/`` and ``evaluations/`` live here, and ``best/``: the
            agent at the best of these evaluations, a run to evaluate like any other. If it holds a run with these
            settings, that run goes on.

    Raises:
        UsageError: The folder holds a run with other settings, or a checkpoint that does not fit.
    """

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        envs = gym.make_vec(config.env_id, num_envs=config.collect.num_envs, **config.env)
        spaces = envs.single_observation_space, envs.single_action_space
        self._spaces = str(spaces)
        self.model = AgentModel.seeded(config.seed, config.model, config.learning, *spaces)
        _claim(folder, config)
        self._loggers = make_loggers(config.loggers, folder, to_dict(config))
        self.learner = Learner(self.model, config.learning, config.seed, self.device, config.updates)
        self.collector = Collector(envs, config.collect, config.seed, self.device)
        on_disk = folder / "replay" if config.collect.replay_on_disk else None
        self.replay = Replay(config.collect.replay, *self.collector.examples, folder=on_disk)
        self._replay_lock = threading.Lock()  # the collector adds while the learner samples
        self._returns: deque[Any] = deque(maxlen=200)
        self.stop = threading.Event()
        self.log = RunLog(folder / "log.jsonl")
        self._resume()

    @property
    def parameters(self) -> int:
        """Optimized parameters."""
        return sum(parameter.numel() for parameter in self.model.optimized())

    # ---- the loop ----

    def run(self, on_round: OnRound | None = None) -> bool:
        """Train until ``config.updates`` are done, or until ``stop`` is set (by a signal handler, say).

        Args:
            on_round: Called with the numbers of each round.

        Returns:
            Whether the run is complete. A stopped one has written a checkpoint.

        Raises:
            NonFiniteLossError: A loss is NaN or infinite; the last checkpoint is from before it.
        """
        c = self.config
        try:
            if not len(self.replay):
                self._collect(self.model, max(c.collect.first_steps, 1))
                while not len(self.replay):
                    self._collect(self.model, c.collect.num_envs)
            while self.learner.updates < c.updates:
                numbers = self._round()
                if self.stop.is_set():
                    self.save()
                    return False
                rounds = self.learner.updates // c.round_updates
                last = self.learner.updates >= c.updates
                if c.evaluate_rounds and (rounds % c.evaluate_rounds == 0 or last):
                    numbers.update(self._evaluate())
                self.log.write(numbers)
                for logger in self._loggers:
                    logger(self.collector.steps, dict(flat(numbers)))
                if rounds % c.checkpoint_rounds == 0 or last:
                    self.save()
                if on_round:
                    on_round(numbers)
        finally:
            self.collector.envs.close()
        return True

    def _round(self) -> dict[str, Any]:
        c = self.config
        before, steps_before, began = self.learner.updates, self.collector.steps, time.monotonic()
        goal = min(before + c.round_updates - before % c.round_updates, c.updates)
        sums: dict[str, float] = {}
        learning = 0.0
        tokens = 0
        for turn in self._turns(goal - before):
            started = time.monotonic()
            for slices in self._batches(turn):
                tokens += slices.tokens
                for name, value in self.learner.update(slices).items():
                    sums[name] = sums.get(name, 0.0) + value
                if self.stop.is_set():
                    break
            learning += time.monotonic() - started
        updates, seconds = self.learner.updates - before, time.monotonic() - began
        returns = np.array(self._returns)
        return {
            "updates": self.learner.updates,
            "steps": self.collector.steps,
            "seconds": round(seconds, 3),
            "updates_per_second": round(updates / max(learning, 1e-9), 3),
            "tokens_per_second": round(tokens / max(learning, 1e-9), 1),
            "flop_utilization": round(self.learner.flop_utilization(tokens / max(learning, 1e-9)), 4),
            "steps_per_second": round((self.collector.steps - steps_before) / seconds, 1),
            "epsilon": round(self.collector.epsilon, 4),
            "returns": [round(float(v), 4) for v in returns.mean(axis=0)] if len(returns) else [],
            **{name: round(total / max(updates, 1), 6) for name, total in sums.items()},
        }

    def _batches(self, count: int) -> Iterator[Slices]:
        """Slices for the next `count` updates; on a GPU, the next ones are sent there while one is learnt from."""

        def sample(update: int) -> Slices:
            # Drawn from a stream of the update's own, for the sake of resuming.
            rng = np.random.default_rng(np.random.SeedSequence([self.config.seed, 1, update]))
            with self._replay_lock:
                batch = self.replay.sample(self.config.learning.batch_size, self.config.model.context, rng)
            return self.learner.prepare(batch)

        updates = range(self.learner.updates, self.learner.updates + count)
        return prefetched(sample, updates) if _prefetching(self.device) else map(sample, updates)

    def _turns(self, updates: int) -> Iterator[int]:
        """Numbers of updates to do in a row, with collecting between (sync) or beside them."""
        per_update = self.config.collect.steps_per_update
        if self.config.sync:
            for done in range(0, updates, _TURN):
                if self.stop.is_set():
                    return
                turn = min(_TURN, updates - done)
                self._collect(self.model, max(1, round(turn * per_update)))
                yield turn
            return
        # The background copy is refreshed every round; rounds are short beside the life of the data they collect.
        actor = copy.deepcopy(self.model)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                self._collect(actor, max(1, round(updates * per_update)))
            except BaseException as error:
                failures.append(error)

        worker = threading.Thread(target=work, name="collector", daemon=True)
        worker.start()
        try:
            yield updates
        finally:
            worker.join()
        if failures:
            raise failures[0]

    def _collect(self, model: AgentModel, steps: int) -> None:
        model.eval()
        for rollout, returns in self.collector.collect(model, steps):
            with self._replay_lock:
                self.replay.add(rollout)
            if returns is not None:
                self._returns.append(returns)

    def _evaluate(self) -> dict[str, Any]:
        """Play validation cases of the split that is trained on; their records can be scored like any others.

        They come from a stream of their own, so that the final evaluation's cases choose nothing here.
        """
        c = self.config
        env_kwargs = {name: value for name, value in c.env.items() if name != "split"}
        run = evaluate(
            c.env_id,
            TransformerPolicy(self.model, self.device, self.folder.resolve().name, c.seed, self.collector.steps),
            self.folder / "evaluations" / f"update-{self.learner.updates:09d}",
            split=c.env.get("split", "train"),
            cases="validation",
            rollouts_per_task=c.evaluate_rollouts,
            seed=c.seed,
            env_kwargs=env_kwargs,
        )
        means = mean_scores(run.episodes, run.manifest["objective"])
        self._keep_if_best(selection_score(run.manifest["suite"], means))
        return {"evaluation": {task: round(value, 4) for task, value in means.items()}}

    # ---- checkpoints ----

    def _keep_if_best(self, score: float) -> None:
        folder = self.folder / "best"
        before = checkpoint.newest(folder / "checkpoints", with_replay=False)
        if before is not None and before[1]["score"] >= score:
            return
        write_json(folder / "config.json", to_dict(self.config))
        state = {
            "model": self.model.state_dict(),
            "updates": self.learner.updates,
            "steps": self.collector.steps,
            "spaces": self._spaces,
            "score": score,
        }
        checkpoint.save(folder / "checkpoints", self.learner.updates, state, {}, keep=1)

    def save(self) -> None:
        """Write a checkpoint, and begin new rollouts as a resumed run would."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "updates": self.learner.updates,
            "steps": self.collector.steps,
            "returns": [list(map(float, value)) for value in self._returns],
            "spaces": self._spaces,
        }
        folder = self.folder / "checkpoints"
        checkpoint.save(folder, self.learner.updates, state, self.replay.state(), self.config.keep_checkpoints)
        self.collector.restart(self.learner.updates)

    def _resume(self) -> None:
        found = checkpoint.newest(self.folder / "checkpoints")
        if found is None:
            self.log.cut(0)
            return
        path, state, replay = found
        if state["spaces"] != self._spaces:
            raise UsageError(f"{path} was trained on other spaces: {state['spaces']}, not {self._spaces}.")
        self.model.load_state_dict(state["model"])
        self.learner.optimizer.load_state_dict(state["optimizer"])
        self.learner.updates = state["updates"]
        self.collector.steps = state["steps"]
        self._returns.extend(np.array(value) for value in state["returns"])
        self.replay.load_state(replay)
        self.collector.restart(self.learner.updates)
        self.log.cut(self.learner.updates)


def selection_score(suite: str, returns: dict[str, float]) -> float:
    """What chooses between an agent's checkpoints: the mean over tasks on the suite's first scale.

    Plain returns serve where the suite has no references.

    Args:
        suite: Suite name.
        returns: By task, the mean scored return.
    """
    try:
        scale = next(iter(load_references(suite).scales.values()))
        return float(np.mean([scale.normalize(task, np.array(value)) for task, value in returns.items()]))
    except UsageError:
        return float(np.mean(list(returns.values())))


def _prefetching(device: torch.device) -> bool:
    return device.type == "cuda"  # a CPU that makes the next batch ready is not learning meanwhile


# What may differ between two starts of the same run.
_FREE = ("updates", "threads", "keep_checkpoints", "loggers")


def _claim(folder: Path, config: TrainConfig) -> None:
    """Write the settings into the folder, or check them against those it has."""
    path = folder / "config.json"
    if path.exists():
        known, wanted = to_dict(read_config(path)), to_dict(config)
        for name in wanted:
            if name not in _FREE and known[name] != wanted[name]:
                raise UsageError(
                    f"{folder} holds a run with other settings: {name} is {known[name]!r}, not {wanted[name]!r}. "
                    "Give another folder with --out, or delete this one."
                )
    write_json(path, to_dict(config))
