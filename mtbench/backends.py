"""Where shards are played: in processes of this machine (:mod:`mtbench.jobs`) or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym

from mtbench.errors import UsageError, unknown_name_error
from mtbench.jobs import NOT_SENDABLE, START_DELAY, OnRollouts, OnShard, Setup, play_shards, sendable, uses_a_gpu
from mtbench.playing import Shard
from mtbench.policy import Policy
from mtbench.vector.engine import cpus

NAMES = ("local", "ray")


@dataclass(frozen=True)
class Backend:
    """Where shards are played, and by how many processes. It changes no record.

    Attributes:
        name: One of :data:`NAMES`.
        address: Of the Ray cluster; None starts Ray on this machine (:func:`mtbench.clusters.joined`).
        jobs: Processes that play; None means the cores that this process may use, or the cluster's.

    Raises:
        UsageError: There is no such backend, or an argument does not suit it.
    """

    name: str = "local"
    address: str | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise unknown_name_error("backend", self.name, NAMES, "mtbench")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError("`jobs` must be at least 1.")
        if self.address is not None and self.name != "ray":
            raise UsageError("An address is one of a Ray cluster: it needs the backend ray (--backend ray).")

    def play(
        self, setup: Setup, policy: Policy, shards: Sequence[Shard], on_rollouts: OnRollouts, on_shard: OnShard
    ) -> None:
        """Play shards; the arguments and errors are those of :func:`mtbench.jobs.play_shards`."""
        if self.name == "ray":
            from mtbench import ray_jobs

            ray_jobs.play_shards(setup, shards, self.jobs, self.address, on_rollouts, on_shard)
            return
        delay = START_DELAY if self.jobs is None else 0.0
        play_shards(setup, policy, shards, self._processes(setup, len(shards)), delay, on_rollouts, on_shard)

    def _processes(self, setup: Setup, shards: int) -> int:
        """Processes of this machine that play. Where a caller's number is not kept, a warning says why."""
        if self.jobs == 1 or shards == 1 or (self.jobs is None and uses_a_gpu()):
            return 1
        if setup.policy is None or sendable(setup) is None:
            if self.jobs is not None:
                gym.logger.warn(f"The evaluation uses one process: {NOT_SENDABLE}")
            return 1
        return min(self.jobs or cpus(), shards)
