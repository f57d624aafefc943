"""Golden traces freeze a version: hashes of observations, rewards and flags under fixed seeds and actions.

``python -m tests.contract.golden`` adds missing entries and never changes one: a trace that must change is a -v1.
Before a version is published its traces may change: ``--replace`` plays all of them anew. IDs as arguments restrict
either to their files. Cases are played side by side, on all cores.
"""

import argparse
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
from mtbench.registration import TABLE
from mtbench.vector.engine import cpus

FOLDER = Path(__file__).parent.parent / "golden"
SEEDS = (0, 1, 2)
PREFIXES = (1, 10, 100)  # steps of the first rollout after which the hash is kept too: they say where a trace parts


def trace_hash(env_id, split, task, make=gym.make):
    """Two rollouts under uniform actions and one where every other action is 0. Floats are rounded to 4 decimals:
    the last bits of sines and cosines differ between processors."""
    env = make(env_id, split=split)
    digest = hashlib.sha256()
    steps, prefixes = 0, {}
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        obs, info = env.reset(seed=seed, options={"task": task})
        _add(digest, obs, 0.0, False, False)
        over = False
        while not over:
            obs, reward, terminated, truncated, info = env.step(_action(env.action_space, rng, narrow=seed == 2))
            _add(digest, obs, reward, terminated, truncated)
            over = terminated or truncated
            steps += 1
            if steps in PREFIXES and seed == SEEDS[0]:
                prefixes[str(steps)] = digest.hexdigest()[:16]
        for value in info["rollout"].values():
            digest.update(_rounded(value))
    env.close()
    return {"prefixes": prefixes, "steps": steps, "sha256": digest.hexdigest()}


def _action(space, rng, narrow):
    """Drawn by NumPy alone, so that a change in Gymnasium's sampling changes no trace."""
    if isinstance(space, gym.spaces.Discrete):
        return int(rng.integers(space.n)) * (int(rng.integers(2)) if narrow else 1)
    return rng.uniform(space.low, space.high).astype(space.dtype)


def _rounded(value):
    array = np.asarray(value)
    if array.dtype.kind == "f":
        array = np.round(array.astype(np.float64), 4) + 0.0
    return array.tobytes()


def _add(digest, obs, reward, terminated, truncated):
    for part in obs.values() if isinstance(obs, dict) else [obs]:
        digest.update(_rounded(part))
    digest.update(_rounded(reward))
    digest.update(bytes([terminated, truncated]))


def cases(row):
    suite = row.suite
    return [(split, task) for split in ("train", "test") for task in suite.splits[split].tasks]


def platform_name(row):
    """The machine, and the packages that draw: Procgen's wheels were built with different libraries."""
    packages = row.suite.distributions
    return " ".join([f"{sys.platform}-{platform.machine()}", *packages])


def read(env_id, folder=FOLDER):
    path = folder / f"{env_id}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def renew(env_ids, folder=FOLDER, replace=False, workers=None):
    """Add the missing entries to the files of some IDs; with `replace`, write the files anew."""
    rows = [row for row in TABLE if row.id in env_ids]
    # Fresh processes: forked ones would share the threads of this one's simulators.
    with ProcessPoolExecutor(workers or cpus(), mp_context=multiprocessing.get_context("spawn")) as pool:
        under_way = []
        for row in rows:
            known = {} if replace else read(row.id, folder)
            missing = [case for case in cases(row) if "/".join(case) not in known]
            under_way.append((row, known, {case: pool.submit(trace_hash, row.id, *case) for case in missing}))
        for row, known, traces in under_way:
            if not known and gym.make(row.id).observation_space.dtype == np.uint8:
                known["platform"] = platform_name(row)  # which may decide how frames are drawn
            for case, trace in traces.items():
                known["/".join(case)] = trace.result()
            write_json(folder / f"{row.id}.json", known)
            print(f"{row.id}: {len(traces)} traces played")


def main(arguments=None):
    ids = [row.id for row in TABLE]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help="whose traces; by default of all IDs")
    parser.add_argument("--replace", action="store_true", help="also change entries: before a release only")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are; by default tests/golden")
    parser.add_argument("--workers", type=int, help="processes; by default one for each core")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.ids) - set(ids):
        parser.error(f"unknown IDs {sorted(unknown)}; choose from {', '.join(ids)}")
    renew(chosen.ids or ids, chosen.folder, chosen.replace, chosen.workers)


if __name__ == "__main__":
    main()
