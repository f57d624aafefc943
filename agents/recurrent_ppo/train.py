"""The training loop around sb3-contrib's: log, evaluate, checkpoint; the same command resumes.

An update is one round of SB3's algorithm: the same number of steps in every environment, learnt from several times.
Its random draws come from generators seeded for that update alone. A resumed run has the weights, the optimizer and the
normalization of rewards of its checkpoint; its environments begin new rollouts, drawn from another stream.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from mtbench.adapters import global_generators_kept
from mtbench.errors import UsageError
from mtbench.files import full_disk_explained
from mtbench.locking import FolderLock

from ..training import checkpoint
from ..training.folder import claim, drop_evaluations, tidy
from ..training.run_log import RunLog, flat, make_loggers
from ..training.settings import to_dict
from ..training.validation import Stopped, keep_if_best, stoppable, validated
from .config import PPOConfig, read_config
from .envs import make_envs, reward_statistics, set_reward_statistics
from .policy import Network, RecurrentPPOPolicy, network_kwargs, remember

OnRound = Callable[[dict[str, Any]], None]

_MANY = 10**9

# SB3's names of what an update reports, and ours.
_NUMBERS = {
    "policy_gradient_loss": "actor",
    "value_loss": "critic",
    "entropy_loss": "entropy",
    "approx_kl": "kl",
    "clip_fraction": "clipped_ratios",
    "explained_variance": "explained_variance",
}


class Trainer:
    """One training run in a folder, laid out as the reference agent's.

    Args:
        config: All settings.
        folder: If it holds a run with these settings, that run goes on.

    Raises:
        UsageError: The folder holds a run with other settings or a checkpoint that does not fit, or another process
            trains in it.
    """

    first: bool = True
    unit: str = "steps"
    envs: VecEnv
    model: RecurrentPPO
    log: RunLog

    def __init__(self, config: PPOConfig, folder: Path) -> None:
        self.config: Final = config
        self.folder: Final = folder
        self.stop: Final = threading.Event()
        self.updates: int = 0
        self._saved = -1
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with full_disk_explained(folder):
            self._lock = FolderLock(folder, "trains in")
            try:
                self._set_up()
            except BaseException:
                if hasattr(self, "envs"):
                    self.envs.close()
                self._lock.release()
                raise

    def _set_up(self) -> None:
        config, folder = self.config, self.folder
        claim(folder, config, read_config)
        tidy(folder, config, read_config)
        self._loggers = make_loggers(config.loggers, folder, to_dict(config))
        found = checkpoint.newest(folder / "checkpoints", with_replay=False)
        done = 0 if found is None else int(found[1]["updates"])
        self.envs, self._counted = make_envs(config, _seed(config.seed, 0, done))
        inner = self._counted.venv
        self._spaces = str((inner.observation_space, inner.action_space))
        with global_generators_kept():
            set_random_seed(_seed(config.seed, 2))  # of the first weights
            self.model = RecurrentPPO(
                Network,
                self.envs,
                learning_rate=lambda _: self._rate,
                n_steps=config.horizon,
                batch_size=config.batch_size,
                n_epochs=config.epochs,
                gamma=config.discount,
                gae_lambda=config.gae_lambda,
                clip_range=config.clip_range,
                ent_coef=config.entropy,
                vf_coef=config.value_weight,
                max_grad_norm=config.clip,
                policy_kwargs=network_kwargs(config, self.envs.observation_space),
            )
            if config.remembers:
                remember(self.model.policy, config.remembers)
        self.log = RunLog(folder / "log.jsonl")
        self._resume(found)

    # ---- what the command line shows; see training/agents.py ----

    @property
    def about(self) -> str:
        """The model and where it runs."""
        parameters = sum(one.numel() for one in self.model.policy.parameters())
        return f"recurrent PPO, {parameters:,} parameters on {self.model.device}"

    @property
    def total(self) -> int:
        """Environment steps in all: whole updates."""
        return self._total_updates * self.config.update_steps

    @property
    def done(self) -> int:
        """Environment steps so far."""
        return self.updates * self.config.update_steps

    @property
    def _total_updates(self) -> int:
        return -(-self.config.steps // self.config.update_steps)

    @property
    def _rate(self) -> float:
        return self.config.rate * max(0.0, 1 - self.updates / self._total_updates)

    # ---- the loop ----

    def run(self, on_round: OnRound | None = None) -> bool:
        """Train until the steps are done, or until ``stop`` is set (by a signal handler, say).

        Args:
            on_round: Called with the numbers of each round.

        Returns:
            Whether the run is complete. A stopped one has a checkpoint of all its whole updates.

        Raises:
            UsageError: A loss is NaN or infinite; the last checkpoint is from before it.
            DiskFullError: The last checkpoint is from before it.
        """
        try:
            with full_disk_explained(self.folder):
                return self._run(on_round or (lambda numbers: None))
        finally:
            self.close()

    def close(self) -> None:
        """Close the environments and unlock the folder."""
        self.envs.close()
        self._lock.release()

    def _run(self, on_round: OnRound) -> bool:
        while self.updates < self._total_updates:
            numbers = self._round()
            if numbers is None or not self._report(numbers, on_round):
                self.save()
                return False
        if self._saved != self.updates:
            self.save()
        return True

    def _round(self) -> dict[str, Any] | None:
        """Updates until the round's end; None where the run is to stop before that."""
        c = self.config
        before, learning = self.updates, 0.0
        began, cpu_began = time.monotonic(), time.process_time()
        goal = min(before + c.round_updates - before % c.round_updates, self._total_updates)
        lines: list[dict[str, float]] = []
        while self.updates < goal:
            clock = _Clock(self.stop)
            with global_generators_kept():
                set_random_seed(_seed(c.seed, 1, self.updates))
                # Never printed, as SB3 would forget the numbers with that.
                self.model.learn(c.update_steps, clock, log_interval=_MANY, reset_num_timesteps=False)
            if self.stop.is_set():
                return None
            learning += clock.since_collecting()
            self.updates += 1
            lines.append(self._learnt())
        seconds, updates = time.monotonic() - began, self.updates - before
        returns = np.array(self._counted.returns)
        return {
            "updates": self.updates,
            "steps": self.done,
            "seconds": round(seconds, 3),
            "cpu_seconds": round(time.process_time() - cpu_began, 3),
            "updates_per_second": round(updates / max(learning, 1e-9), 3),
            "steps_per_second": round(updates * c.update_steps / seconds, 1),
            "returns": [round(float(value), 4) for value in returns.mean(axis=0)] if len(returns) else [],
            **{name: round(float(np.mean([line[name] for line in lines])), 6) for name in lines[0]},
        }

    def _learnt(self) -> dict[str, float]:
        """What SB3 reports of the latest update."""
        reported = self.model.logger.name_to_value
        if not math.isfinite(reported["train/loss"]):
            raise UsageError(
                f"The loss is {reported['train/loss']} after {self.updates} updates. Lower `rate` and train anew, or "
                "go on from the last checkpoint, which is from before that."
            )
        return {name: float(reported[f"train/{key}"]) for key, name in _NUMBERS.items()}

    def _report(self, numbers: dict[str, Any], on_round: OnRound) -> bool:
        """Evaluate, log and save as is due; False where the run is to stop before that is done."""
        c, rounds = self.config, self.updates // self.config.round_updates
        is_last = self.updates >= self._total_updates
        if c.evaluate_rounds and (rounds % c.evaluate_rounds == 0 or is_last):
            try:
                numbers.update(self._evaluate())
            except Stopped:
                return False
        self.log.write(numbers)
        for logger in self._loggers:
            logger(self.done, dict(flat(numbers)))
        if rounds % c.checkpoint_rounds == 0 or is_last:
            self.save()
        on_round(numbers)
        return True

    def _evaluate(self) -> dict[str, Any]:
        name, network = self.folder.resolve().name, self.model.policy
        assert isinstance(network, Network)
        policy = RecurrentPPOPolicy(network, name, self.config.seed, self.done)
        means = validated(stoppable(policy, self.stop), self.folder, self.updates, self.config)
        keep_if_best(self.folder, self.config, self.updates, means, self._acting)
        return {"evaluation": {task: round(value, 4) for task, value in means.items()}}

    # ---- checkpoints ----

    def _acting(self) -> dict[str, Any]:
        return {"model": self.model.policy.state_dict(), "steps": self.done, "spaces": self._spaces}

    def save(self) -> None:
        """Write a checkpoint."""
        state = {
            **self._acting(),
            "optimizer": self.model.policy.optimizer.state_dict(),
            "updates": self.updates,
            "rewards": reward_statistics(self.envs),
        }
        checkpoint.save(self.folder / "checkpoints", self.updates, state, {}, self.config.keep_checkpoints)
        self._saved = self.updates

    def _resume(self, found: tuple[Path, dict[str, Any], Any] | None) -> None:
        if found is None:
            self.log.cut(0)
            return
        path, state, _ = found
        if state["spaces"] != self._spaces:
            raise UsageError(f"{path} was trained on other spaces: {state['spaces']}, not {self._spaces}.")
        self.model.policy.load_state_dict(state["model"])
        self.model.policy.optimizer.load_state_dict(state["optimizer"])
        set_reward_statistics(self.envs, state["rewards"])
        self._saved = self.updates = state["updates"]
        self.log.cut(self.updates)
        drop_evaluations(self.folder, self.updates)


class _Clock(BaseCallback):
    """Ends collecting once the run is to stop, and tells collecting and learning apart."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self._stopped, self._collected = stop, 0.0

    def _on_step(self) -> bool:
        return not self._stopped.is_set()

    def _on_rollout_end(self) -> None:
        self._collected = time.monotonic()

    def since_collecting(self) -> float:
        """Seconds since the environments were last stepped."""
        return time.monotonic() - self._collected


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
