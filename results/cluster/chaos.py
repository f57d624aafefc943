"""Kill workers, collectors and nodes of a Ray cluster in the middle of evaluations and trainings.

    python results/cluster/chaos.py --trials 20

The cluster is on this machine: a head and two nodes of one CPU each. Moments are drawn from a seed. Writes chaos.csv
beside this file: what was killed in each trial, and what came of it.
"""

import argparse
import contextlib
import dataclasses
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
from mtbench_agents.training.settings import updated
from mtbench_agents.transformer.config import preset
from mtbench_agents.transformer.train import Trainer
from ray.cluster_utils import Cluster

from mtbench import clusters
from mtbench.evaluation import evaluate
from mtbench.records import Run, write_atomically

HERE = Path(__file__).parent
STORE = 80 * 2**20
TASKS = ["MineSweeperEasy", "RepeatFirstEasy"]
ROLLOUTS = 24  # of each task; a shard has 4
AFTERWARDS = 100  # updates

# Random play of a file, which says where it plays and is slow enough to be killed.
POLICY = """
import os, time
from pathlib import Path
import ray
from mtbench_agents.random import RandomPolicy

class Policy(RandomPolicy):
    def start(self, *arguments):
        super().start(*arguments)
        if ray.is_initialized():
            (Path({folder!r}) / str(os.getpid())).write_text(ray.get_runtime_context().get_node_id())

    def act(self, observations, reset_mask):
        if ray.is_initialized():
            time.sleep(0.003)
        return super().act(observations, reset_mask)
"""

CONFIG = updated(
    preset("debug"),
    {
        "env.tasks": ["RepeatFirstEasy"],  # no two of its rollouts are alike
        "collectors": "ray:2",
        "updates": 1_000_000,
        "round_updates": 20,
        "collect.num_envs": 4,
        "collect.first_steps": 200,
        "collect.replay": 200_000,
        "collect.steps_per_update": 20.0,
        "collect.refresh_updates": 5,
        "learning.batch_size": 4,
        "threads": 1,
    },
)


class Nodes:
    """A head and two more; a removed one is replaced."""

    def __init__(self) -> None:
        size = {"num_cpus": 1, "object_store_memory": STORE}
        self.cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
        self._size, self._more = size, [self.cluster.add_node(**size) for _ in range(2)]

    def removable(self, name: str) -> bool:
        """Whether it is not the head."""
        return any(node.node_id == name for node in self._more)

    def remove(self, name: str) -> None:
        """Kill a node, and add another one."""
        (node,) = (node for node in self._more if node.node_id == name)
        self._more.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        self._more.append(self.cluster.add_node(**self._size))


def alive(process: int) -> bool:
    """Whether a process runs (Linux)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def evaluated(folder: Path, policy: str, **how: Any) -> Run:
    """The evaluation that all trials are of."""
    arguments = {"rollouts_per_task": ROLLOUTS, "num_envs": 1, "env_kwargs": {"tasks": TASKS}, "agent": "random"}
    return evaluate("MTPOPGym-v0", policy, folder, **arguments, **how)


def evaluation_trial(nodes: Nodes, what: str, rng: np.random.Generator, folder: Path, expected: str) -> dict[str, Any]:
    """Play it on the cluster, killing something once or twice."""
    places = folder / "places"
    places.mkdir()
    (folder / "mine.py").write_text(POLICY.format(folder=str(places)))
    total = ROLLOUTS * len(TASKS)
    moments = set((4 * rng.choice(np.arange(1, total // 4 - 1), size=2 - (what == "node"), replace=False)).tolist())
    killed, counts = 0, []

    def trouble(done: int, _: int) -> None:
        nonlocal killed
        counts.append(done)
        if done not in moments:
            return
        playing = [path for path in places.iterdir() if alive(int(path.name))]
        if what == "node":
            playing = [path for path in playing if nodes.removable(path.read_text())]
        chosen = playing[rng.integers(len(playing))]
        if what == "node":
            nodes.remove(chosen.read_text())
        else:
            os.kill(int(chosen.name), signal.SIGKILL)
        killed += 1

    began = time.monotonic()
    run = evaluated(folder / "run", f"{folder}/mine.py:Policy", backend="ray", on_rollout=trouble)
    return {
        "work": "evaluation",
        "killed": what,
        "kills": killed,
        "complete": len(run.episodes) == total * run.manifest["k"],
        "same_records": run.manifest["episodes_sha256"] == expected,
        "doubled": len(counts) - total,
        "seconds": round(time.monotonic() - began, 1),
    }


def collectors(trainer: Trainer) -> list[tuple[int, str]]:
    """Process and node of each collector that is there."""
    found = []
    for member in trainer.collector._members:  # type: ignore[attr-defined]
        asked = member.actor.__ray_call__.remote(lambda _: (os.getpid(), ray.get_runtime_context().get_node_id()))
        with contextlib.suppress(ray.exceptions.RayActorError):
            found.append(ray.get(asked))
    return found


def training_trial(nodes: Nodes, what: str, rng: np.random.Generator, folder: Path, seed: int) -> dict[str, Any]:
    """Train on the cluster, killing something once or twice, and on for a while after every loss was noticed."""
    config = dataclasses.replace(CONFIG, seed=seed)
    trainer = Trainer(config, folder / "run")
    wanted = 2 - (what == "node")
    moments = set(rng.choice(np.arange(2, 60), size=wanted, replace=False).tolist())
    arrived: list[Any] = []
    noticed: list[int] = []  # updates at which a loss was
    replace = trainer.collector._replace  # type: ignore[attr-defined]

    def replaced(*arguments: Any) -> None:
        noticed.append(trainer.learner.updates)
        replace(*arguments)

    trainer.collector._replace = replaced  # type: ignore[attr-defined]
    trainer.collector.on_collected = arrived.append  # type: ignore[attr-defined]
    update, killed = trainer.learner.update, 0

    def trouble(prepared: Any) -> Any:
        nonlocal killed
        if len(noticed) >= wanted and trainer.learner.updates >= noticed[-1] + AFTERWARDS:
            trainer.stop.set()
        if trainer.learner.updates in moments:
            moments.discard(trainer.learner.updates)
            found = [place for place in collectors(trainer) if what != "node" or nodes.removable(place[1])]
            if not found:  # they are being replaced
                moments.add(trainer.learner.updates + 1)
                return update(prepared)
            process, node = found[rng.integers(len(found))]
            if what == "node":
                nodes.remove(node)
            else:
                os.kill(process, signal.SIGKILL)
            killed += 1
        return update(prepared)

    trainer.learner.update = trouble  # type: ignore[method-assign]
    began = time.monotonic()
    trainer.run()  # until it is stopped, and has saved
    identities = {collected.identity for collected in arrived}
    contents = {collected.rollout.observations.tobytes() for collected in arrived}
    return {
        "work": "training",
        "killed": what,
        "kills": killed,
        "complete": trainer.learner.updates >= noticed[-1] + AFTERWARDS,
        "doubled": len(trainer.replay) - min(len(identities), len(contents)),
        "rollouts": len(trainer.replay),
        "lost_collectors": len(noticed),
        "lost_rollouts": len(noticed) * config.collect.num_envs,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Make trouble."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    kinds = [("evaluation", "worker"), ("training", "collector"), ("evaluation", "node"), ("training", "node")]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "mine.py").write_text(POLICY.format(folder=name))
        here = evaluated(Path(name) / "here", f"{name}/mine.py:Policy", jobs=1)
        nodes = Nodes()
        with clusters.joined(nodes.cluster.address):
            for trial in range(arguments.trials):
                work, what = kinds[trial % len(kinds)]
                folder = Path(name) / str(trial)
                folder.mkdir()
                if work == "evaluation":
                    row = evaluation_trial(nodes, what, rng, folder, here.manifest["episodes_sha256"])
                else:
                    row = training_trial(nodes, what, rng, folder, trial)
                rows.append({"trial": trial, **row})
                print(rows[-1], flush=True)  # noqa: T201
        nodes.cluster.shutdown()
    frame = pd.DataFrame(rows)
    write_atomically(HERE / "chaos.csv", lambda path: frame.to_csv(path, index=False))


if __name__ == "__main__":
    main()
