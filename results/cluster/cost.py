"""What Ray costs: evaluations beside local ones at equal cores, and what collectors send.

    python results/cluster/cost.py evaluation
    python results/cluster/cost.py collection

Each measurement takes turns with the others, several times. Writes evaluation.csv and collection.csv beside this file;
report.py makes the tables of them.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
from mtbench_agents.training.settings import updated
from mtbench_agents.transformer.acting import ActingModel
from mtbench_agents.transformer.collecting import make_envs
from mtbench_agents.transformer.collector import Collector
from mtbench_agents.transformer.config import TrainConfig, preset
from mtbench_agents.transformer.learner import Learner
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.remote_collectors import RemoteCollectors
from mtbench_agents.transformer.replay import Replay
from torch import device, set_num_threads

from mtbench import clusters
from mtbench.evaluation import evaluate
from mtbench.records import write_atomically

HERE = Path(__file__).parent
CORES = 2
# Steps to collect of each suite, and the longest rollout: long ones would not end in that time.
SUITES = {
    "MTPOPGym-v0": (40_000, None),
    "MTBabyAI-v0": (40_000, None),
    "ML10-v0": (10_000, 60),
    "MTProcgen-Easy-v0": (8_000, 60),
}
_BLOCK = 32 * 2**20  # bytes


def evaluation(repeats: int, rollouts: int) -> Iterator[dict[str, Any]]:
    """Seconds of random play of MTBabyAI-v0: here, on a cluster that runs already, on a Ray that is started for it."""
    how = {"rollouts_per_task": rollouts, "num_envs": 32, "jobs": CORES}
    for repeat in range(repeats):
        yield {"repeat": repeat, "side": "local", **timed(how)}
        with clusters.joined(cores=CORES):
            yield {"repeat": repeat, "side": "ray", **timed({**how, "backend": "ray"})}
        started = timed({**how, "backend": "ray"})
        yield {"repeat": repeat, "side": "ray, started for it", **started, "processor_seconds": None}


def timed(how: dict[str, Any]) -> dict[str, Any]:
    """Of one evaluation, from its beginning to its records, workers' start included."""
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.monotonic(), processor_seconds()
        run = evaluate("MTBabyAI-v0", "random", Path(folder) / "run", **how)
        return {
            "seconds": round(time.monotonic() - began, 2),
            "processor_seconds": round(processor_seconds() - before, 2),
            "steps": int(run.episodes["length"].sum()),
        }


def processor_seconds() -> float:
    """Of this process and all that it has started, Ray's own included (Linux)."""
    times, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            times[int(path.parent.name)] = sum(map(int, fields[11:15]))  # itself, and children that it has waited for
    ours = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(times[process] for process in ours) / os.sysconf("SC_CLK_TCK")


def collection(repeats: int) -> Iterator[dict[str, Any]]:
    """What collectors send, and what the learner's process and the object store make of it."""
    set_num_threads(1)
    with clusters.joined(cores=CORES):
        for repeat in range(repeats):
            for env_id, (steps, longest) in SUITES.items():
                yield {"repeat": repeat, "what": env_id, **sent(env_id, steps, longest)}
            for name in ("small", "paper"):
                yield {"repeat": repeat, "what": f"weights, {name}", **broadcast(preset(name, "MTPOPGym-v0"))}
            yield {"repeat": repeat, "what": "object store", **store()}


def sent(env_id: str, steps: int, longest: int | None) -> dict[str, Any]:
    """By one collector with the preset small, and by the same one without Ray."""
    config = updated(preset("small", env_id), {"collectors": "ray:1", "env.max_steps": longest})
    envs = make_envs(updated(config, {"collectors": "local"}))
    model = AgentModel.seeded(0, config.model, config.learning, envs.single_observation_space, envs.single_action_space)
    own = Collector(envs, config.collect, 0, device("cpu"))
    acting = ActingModel(model)
    list(own.collect(acting, steps // 10))
    began, before = time.monotonic(), own.steps
    list(own.collect(acting, steps))
    here = (own.steps - before) / (time.monotonic() - began)
    learner = Learner(model, config.learning, 0, device("cpu"), config.updates, config.model.context)
    collectors = RemoteCollectors(config, 1, None, own.examples, learner)
    envs.close()
    collectors.load(model, 0)
    list(collectors.rollouts(max(steps // 10, 1), lambda: False))
    collectors.numbers()
    began, before = time.monotonic(), collectors.steps
    rollouts = [rollout for rollout, _ in collectors.rollouts(steps, lambda: False)]
    seconds, numbers = time.monotonic() - began, collectors.numbers()["collectors"]
    taken = collectors.steps - before
    collectors.close()
    replay = Replay(4 * taken, *own.examples)
    began = time.monotonic()
    for rollout in rollouts:
        replay.add(rollout)
    intake = time.monotonic() - began
    return {
        "steps_per_second": round(taken / seconds, 1),
        "steps_per_second_here": round(here, 1),
        "bytes_per_step": round(numbers["bytes"] / sum(len(rollout.rewards) for rollout in rollouts), 2),
        "requests_per_step": round(numbers["requests"] / taken, 6),
        "intake_ns_per_byte": round(1e9 * intake / numbers["bytes"], 3),
    }


def broadcast(config: TrainConfig) -> dict[str, Any]:
    """Of a version of the weights: its size, and how long the learner takes to give it away."""
    envs = make_envs(updated(config, {"collect.num_envs": 1}))
    model = AgentModel.seeded(0, config.model, config.learning, envs.single_observation_space, envs.single_action_space)
    envs.close()
    acting, weights = ActingModel(model), []
    began = time.monotonic()
    for _ in range(10):
        acting.load(model)
        weights = acting.weights()
        ray.put(weights)
    return {
        "bytes": sum(one.nbytes for one in weights),
        "seconds": round((time.monotonic() - began) / 10, 6),
    }


def store() -> dict[str, Any]:
    """Bytes a second that one process puts and gets, and seconds of the learner's process for an empty request."""

    @ray.remote(num_cpus=1)
    class Nothing:
        def answer(self) -> int:
            return 0

    block = np.zeros(_BLOCK, dtype=np.uint8)
    began = time.monotonic()
    references = [ray.put(block) for _ in range(8)]
    put = time.monotonic() - began
    began = time.monotonic()
    for reference in references:
        block[:] = ray.get(reference)  # into the replay, say
    got = time.monotonic() - began
    actor = Nothing.remote()
    ray.get(actor.answer.remote())
    began = time.process_time()
    for _ in range(100):
        for future in [actor.answer.remote().future() for _ in range(10)]:
            future.result()
    return {
        "put_bytes_per_second": round(8 * _BLOCK / put),
        "get_bytes_per_second": round(8 * _BLOCK / got),
        "seconds_per_request": round((time.process_time() - began) / 1000, 7),
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["evaluation", "collection"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rollouts", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.what == "evaluation":
        found = evaluation(arguments.repeats, arguments.rollouts)
    else:
        found = collection(arguments.repeats)
    rows = []
    for row in found:
        rows.append(row)
        print(row, flush=True)  # noqa: T201
    frame = pd.DataFrame(rows)
    write_atomically(HERE / f"{arguments.what}.csv", lambda path: frame.to_csv(path, index=False))


if __name__ == "__main__":
    main()
