"""Golden traces freeze a version: hashes of observations, rewards and flags under fixed seeds and actions.

``python -m tests.contract.golden`` adds missing entries and never changes one: a change that alters a trace needs a new
version (-v1). Before a version is published, ``--replace`` may replace all its traces. IDs as arguments restrict both
to their files. Cases are played in parallel, on all cores.
"""

import argparse
import functools
import hashlib
import json
import multiprocessing
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import gymnasium as gym
import numpy as np

from mtbench.records import write_json
from mtbench.registration import TABLE, find
from mtbench.testing._contract import SHORT_GAMES
from mtbench.vector import make_vec
from mtbench.vector.engine import cpus
from mtbench.vector.infos import info_of

FOLDER = Path(__file__).parent.parent / "golden"
SEEDS = (0, 1, 2)
PREFIXES = (1, 10, 100)  # steps of the first rollout after which the hash is saved too, to find where traces differ
PAYING = {"reward_scales", "clip_rewards"}  # arguments that change what is paid and nothing else


class Trace:
    """The hash of a task's rollouts, one after the other. Floats are rounded to 4 decimals, because the last bits of
    sines and cosines differ between processors."""

    def __init__(self):
        self._digest, self._rollout = hashlib.sha256(), hashlib.sha256()
        self.steps, self.prefixes = 0, {}
        self.rollouts = []  # the hash of each rollout alone
        self.paid = [0.0]  # in each rollout, rewards without their signs

    def add(self, parts, reward, terminated, truncated, step=True):
        """Add a step, or the reset with which a rollout begins. Observations and rewards are rounded already."""
        flags = bytes([bool(terminated), bool(truncated)])
        self._add(*(part.tobytes() for part in parts), reward.tobytes(), flags)
        self.paid[-1] += abs(float(reward))
        self.steps += step
        if step and self.steps in PREFIXES and not self.rollouts:
            self.prefixes[str(self.steps)] = self._digest.hexdigest()[:16]

    def end_rollout(self, statistics):
        self._add(*(_rounded(value).tobytes() for value in statistics.values()))
        self.rollouts.append(self._rollout.hexdigest()[:16])
        self._rollout = hashlib.sha256()
        self.paid.append(0.0)

    def richest(self):
        """The index of the rollout that paid most: where IDs pay otherwise, it shows this best."""
        return int(np.argmax(self.paid[:-1]))

    def _add(self, *contents):
        for content in contents:
            self._digest.update(content)
            self._rollout.update(content)

    def entry(self):
        """What the files of golden traces hold."""
        return {"prefixes": self.prefixes, "steps": self.steps, "sha256": self._digest.hexdigest()}


def trace_hash(env_id, split, task):
    """The entry of an ID that plays all its rollouts itself: two under uniform actions, and one in which a random half
    of the discrete actions is 0."""
    trace = play_alone([find(env_id)], split, task)[env_id]
    return trace.entry() | ({"rollouts": trace.rollouts} if is_long(find(env_id)) else {})


def play_alone(rows, split, task, seeds=SEEDS):
    """Play a task with the first ID, and return its trace and those of the others, which only pay otherwise."""
    env = gym.make(rows[0].id, split=split)
    traces, pays = _traces(rows, task)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        obs, info = env.reset(seed=seed, options={"task": task})
        _add(traces, pays, _parts(obs), 0.0, False, False, step=False)
        over = False
        while not over:
            obs, reward, terminated, truncated, info = env.step(_action(env.action_space, rng, narrow=seed == 2))
            _add(traces, pays, _parts(obs), reward, terminated, truncated)
            over = terminated or truncated
        for trace in traces:
            trace.end_rollout(info["rollout"])
    env.close()
    return {row.id: trace for row, trace in zip(rows, traces, strict=True)}


def play_batch(rows, split, slots):
    """Play on the engine: each slot plays a list of (task, seed), one rollout after the other.

    Returns by task what :func:`play_alone` returns.
    """
    n, left = len(slots), [list(jobs) for jobs in slots]
    venv = make_vec(rows[0].id, n, split=split, autoreset_mode="Disabled")
    assert type(venv).__name__ == "VectorMetaRollout"
    venv.lets_finished_wait = True
    hashing = {task: _traces(rows, task) for jobs in slots for task, _ in jobs}
    tasks, seeds, rngs = [None] * n, [None] * n, [None] * n
    idle = np.zeros(venv.action_space.shape[1:], venv.action_space.dtype)

    def begin(starting):
        mask = np.zeros(n, dtype=np.bool_)
        for i in starting:
            tasks[i], seeds[i] = left[i].pop(0)
            rngs[i], mask[i] = np.random.default_rng(seeds[i]), True
        if starting:
            obs, _ = venv.reset(seed=seeds, options={"task": tasks, "reset_mask": mask})
            parts = _parts(obs)
            for i in starting:
                _add(*hashing[tasks[i]], [part[i] for part in parts], 0.0, False, False, step=False)

    playing = list(range(n))
    begin(playing)
    while playing:
        actions = [idle] * n
        for i in playing:
            actions[i] = _action(venv.single_action_space, rngs[i], narrow=seeds[i] == 2)
        obs, reward, terminated, truncated, infos = venv.step(np.array(actions))
        parts, ended = _parts(obs), []
        for i in playing:
            _add(*hashing[tasks[i]], [part[i] for part in parts], reward[i], terminated[i], truncated[i])
            if terminated[i] or truncated[i]:
                ended.append(i)
                for trace in hashing[tasks[i]][0]:
                    trace.end_rollout(info_of(infos, i)["rollout"])
        playing = [i for i in playing if i not in ended or left[i]]
        begin([i for i in ended if left[i]])
    venv.close()
    return {
        task: {row.id: trace for row, trace in zip(rows, traces, strict=True)} for task, (traces, _) in hashing.items()
    }


def _traces(rows, task):
    """A trace for each ID, and how each but the first pays what the first pays."""
    assert len(rows) == 1 or not PAYING & rows[0].kwargs.keys(), "the first ID pays true rewards"
    return [Trace() for _ in rows], [None, *(functools.partial(_paid, row.kwargs, task) for row in rows[1:])]


def _paid(kwargs, task, reward):
    if kwargs.get("clip_rewards"):
        reward = max(-1.0, min(1.0, reward))
    return reward * kwargs.get("reward_scales", {}).get(task, 1.0)


def _add(traces, pays, parts, reward, terminated, truncated, step=True):
    for trace, pay in zip(traces, pays, strict=True):
        trace.add(parts, _rounded(pay(reward) if pay else reward), terminated, truncated, step)


def _action(space, rng, narrow):
    """Draw an action by NumPy alone, so that a change in Gymnasium's sampling changes no trace."""
    if isinstance(space, gym.spaces.Discrete):
        return int(rng.integers(space.n)) * (int(rng.integers(2)) if narrow else 1)
    return rng.uniform(space.low, space.high).astype(space.dtype)


def _parts(obs):
    return [_rounded(part) for part in (obs.values() if isinstance(obs, dict) else [obs])]


def _rounded(value):
    array = np.asarray(value)
    return np.round(array.astype(np.float64), 4) + 0.0 if array.dtype.kind == "f" else array


def families(table=TABLE):
    """The IDs, those together that play the same rollouts and differ in what they pay. The first pays true rewards."""
    found = {}
    for row in table:
        played = {name: value for name, value in row.kwargs.items() if name not in PAYING}
        found.setdefault(json.dumps(played, sort_keys=True), []).append(row)
    return [sorted(rows, key=lambda row: bool(PAYING & row.kwargs.keys())) for rows in found.values()]


def is_long(row):
    """Whether rollouts are long and the engine runs the games' own code, as single environments do."""
    return row.suite.extra in ("atari", "metaworld")


def seeds_alone(row, split, task):
    """The seeds that a single environment plays. On Meta-World single environments and the engine step the same game
    object, so what the engine plays is left out."""
    if row.suite.extra != "metaworld":
        return SEEDS
    in_batch = {name: seed for slots in batches(row, split) for jobs in slots for name, seed in jobs}
    return tuple(seed for seed in SEEDS if seed != in_batch[task])


def batches(row, split):
    """The slots of the batches that play a split, as :func:`play_batch` takes them. A slot plays all rollouts of a
    task; where they are long, one rollout of each of three tasks. Short games have a batch of their own there."""
    tasks = list(row.suite.splits[split].tasks)
    short = [task for task in SHORT_GAMES.get(row.suite.name, {}).get(split, []) if task in tasks]
    rest = [task for task in tasks if task not in short]
    parts = [part for part in (short, *(rest[i : i + 15] for i in range(0, len(rest), 15))) if part]
    if not is_long(row):
        return [[[(task, seed) for seed in SEEDS] for task in part] for part in parts]
    jobs = [[(task, SEEDS[i % 3]) for i, task in enumerate(part)] for part in parts]
    return [[part[i : i + 3] for i in range(0, len(part), 3)] for part in jobs]


def cases(row):
    suite = row.suite
    return [(split, task) for split in ("train", "test") for task in suite.splits[split].tasks]


def platform_name(row):
    """The machine and the packages that render: Procgen's wheels were built with different libraries."""
    packages = row.suite.distributions
    return " ".join([f"{sys.platform}-{platform.machine()}", *packages])


def read(env_id, folder=FOLDER):
    path = folder / f"{env_id}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def renew(env_ids, folder=FOLDER, replace=False, workers=None):
    """Add the missing entries to the files of some IDs; with `replace`, rewrite the files."""
    rows = [row for row in TABLE if row.id in env_ids]
    # Spawned processes: forked ones would inherit this process's simulators without their threads.
    with ProcessPoolExecutor(workers or cpus(), mp_context=multiprocessing.get_context("spawn")) as pool:
        under_way = []
        for row in rows:
            known = {} if replace else read(row.id, folder)
            missing = [case for case in cases(row) if _lacks(row, known.get("/".join(case)))]
            under_way.append((row, known, {case: pool.submit(trace_hash, row.id, *case) for case in missing}))
        for row, known, traces in under_way:
            if not known and gym.make(row.id).observation_space.dtype == np.uint8:
                known["platform"] = platform_name(row)  # frames may depend on it
            for case, trace in traces.items():
                name, entry = "/".join(case), trace.result()
                if any(entry[part] != value for part, value in known.get(name, {}).items()):
                    raise SystemExit(f"{row.id}, {name}: the trace has changed")
                known[name] = entry
            write_json(folder / f"{row.id}.json", known)
            print(f"{row.id}: {len(traces)} traces played")


def _lacks(row, entry):
    """Whether a case has no entry, or one without the hashes of single rollouts that long ones need."""
    return entry is None or (is_long(row) and "rollouts" not in entry)


def main(arguments=None):
    ids = [row.id for row in TABLE]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help="IDs whose traces to play; by default all")
    parser.add_argument("--replace", action="store_true", help="also replace entries: only before a release")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are; by default tests/golden")
    parser.add_argument("--workers", type=int, help="processes; by default one for each core")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.ids) - set(ids):
        parser.error(f"unknown IDs {sorted(unknown)}; choose from {', '.join(ids)}")
    renew(chosen.ids or ids, chosen.folder, chosen.replace, chosen.workers)


if __name__ == "__main__":
    main()
