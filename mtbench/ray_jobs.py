"""Play an evaluation's shards on a Ray cluster: what :mod:`mtbench.jobs` does with processes of one machine.

A shard is a task of Ray. Ray's worker processes keep the policy and the environments from one shard to the next, and
Ray begins a shard anew elsewhere if its worker or its node is lost. Only this process, which plays nothing itself,
writes the journal: it takes each shard's records once. A shard's records do not depend on who plays it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from mtbench.clusters import first_line, joined, node_name, other_versions
from mtbench.errors import UsageError
from mtbench.isolation import IsolatedPolicy
from mtbench.jobs import NOT_SENDABLE, Failed, OnRollouts, OnShard, Refused, Setup, WorkerError, sendable
from mtbench.playing import PlayedShard, Rows, Shard, play_shard
from mtbench.policy import Policy, absolute_name, search_path
from mtbench.provenance import COMMON, versions
from mtbench.suite import load_suite

if TYPE_CHECKING:
    from types import ModuleType

# How often Ray begins a shard anew: a shard that ends so many workers is probably why.
_RETRIES = 10
# Shards in flight for each CPU of the cluster: one is played, the other one waits there.
_AHEAD = 2
# Seconds between two looks for signals and for changes of the cluster.
_LISTENING = 0.5


@dataclass(frozen=True)
class _Plan:
    """What a worker needs to play shards; small, since it goes with every one of them.

    Attributes:
        key: Of the evaluation.
        setup: A reference to the setup, in a list, so that Ray hands over the reference.
        versions: That this process has.
        path: Where this process finds modules.
    """

    key: str
    setup: list[Any]
    versions: Mapping[str, str]
    path: list[str]


def play_shards(
    setup: Setup,
    shards: Sequence[Shard],
    jobs: int | None,
    address: str | None,
    on_rollouts: OnRollouts,
    on_shard: OnShard,
) -> None:
    """Play shards on a cluster.

    Args:
        setup: What to play.
        shards: In the order in which they begin.
        jobs: How many shards are played at once, at most; None means as many as the cluster has CPUs for, also when it
            grows or shrinks.
        address: Of the cluster, as for :func:`mtbench.clusters.joined`.
        on_rollouts: Called with the number of rollouts that a finished shard has.
        on_shard: Called with each finished shard, once.

    Raises:
        UsageError: The policy cannot be sent; there is no cluster; a node has other versions, cannot load the policy,
            or has no room. Errors that a policy or environment raises in a worker are raised here.
        WorkerError: A shard's workers were lost time and again.
    """
    if isinstance(setup.policy, str):
        setup = dataclasses.replace(setup, policy=absolute_name(setup.policy))
    if setup.policy is None or sendable(setup) is None:
        raise UsageError(f"The evaluation cannot use Ray: {NOT_SENDABLE}")
    known = (*COMMON, *load_suite(setup.spec.kwargs["suite"]).distributions)
    known += ("torch",) if "torch" in sys.modules else ()  # the policy needs it
    with joined(address, jobs) as ray, _explained(ray):
        plan = _Plan(uuid.uuid4().hex, [ray.put(setup)], versions(known), search_path())
        play = ray.remote(num_cpus=1, max_retries=_RETRIES)(_play).remote
        _drive(ray, lambda shard: play(plan, shard), deque(shards), jobs, on_rollouts, on_shard)


def _drive(
    ray: ModuleType,
    begin: Callable[[Shard], Any],
    waiting: deque[Shard],
    jobs: int | None,
    on_rollouts: OnRollouts,
    on_shard: OnShard,
) -> None:
    """Keep as many shards in flight as can be played soon, and no more: none but these take memory."""
    flying: dict[futures.Future[Any], tuple[Any, Shard]] = {}

    def land(timeout: float) -> bool:
        # Not ray.wait: a signal that ends it is always said to be Ctrl-C.
        landed, _ = futures.wait(flying, timeout, futures.FIRST_COMPLETED)
        for future in landed:
            _, shard = flying.pop(future)
            played = _answer(ray, future, shard)
            on_rollouts(len(shard.cases))
            on_shard(played)
        return bool(landed)

    try:
        while waiting or flying:
            most = jobs or _AHEAD * _cores(ray)
            while waiting and len(flying) < most:
                shard = waiting.popleft()
                ref = begin(shard)
                flying[ref.future()] = ref, shard
            land(_LISTENING)
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            while flying and land(0):  # what is finished is kept
                continue
        raise
    finally:
        for ref, _ in flying.values():
            ray.cancel(ref, force=True)


def _cores(ray: ModuleType) -> int:
    """Of the cluster now; at least 1, since a cluster that grows on demand wants to be asked."""
    return max(1, int(ray.cluster_resources().get("CPU", 0)))


def _answer(ray: ModuleType, future: futures.Future[Any], shard: Shard) -> PlayedShard:
    """The records of a shard, or what its worker says went wrong, raised here."""
    lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
    try:
        answer = future.result()
    except lost as error:
        raise WorkerError(
            f"The workers that played shard {shard.index} were lost, {_RETRIES + 1} in a row: {first_line(error)} "
            "Finished shards are kept: run the same evaluation again to resume it, with fewer jobs (--jobs) if there "
            "was not enough memory."
        ) from None
    if isinstance(answer, Refused):
        raise UsageError(answer.reason)
    if isinstance(answer, Failed):
        raise answer.raised()
    assert isinstance(answer, PlayedShard)
    return answer


@contextlib.contextmanager
def _explained(ray: ModuleType) -> Iterator[None]:
    """Make errors of Ray itself errors that say what to do."""
    errors = ray.exceptions
    try:
        yield
    except (errors.ObjectStoreFullError, errors.OutOfDiskError) as error:
        raise UsageError(
            f"Ray has no room for what is played: {first_line(error)} Give its nodes more (ray start "
            "--object-store-memory), or evaluate with fewer jobs (--jobs) or environments (--num-envs)."
        ) from None
    except errors.RayError as error:
        raise UsageError(f"Ray could not play the evaluation: {first_line(error)}{_on_import(error)}") from None


def _on_import(error: BaseException) -> str:
    missing = "No module named" in str(error) or "failed to import" in str(error)
    return " Every node needs the same mtbench, and what it plays, as this process has." if missing else ""


# ---- in a worker ----

# What this process has loaded: of one evaluation, the latest.
_loaded: dict[str, tuple[Rows, Policy]] = {}


def _play(plan: _Plan, shard: Shard) -> PlayedShard | Refused | Failed:
    """Play a shard in a worker of Ray, which keeps the policy and the environments for the next one."""
    if plan.key not in _loaded:
        different = other_versions(plan.versions)
        if different:
            return Refused(f"{different} Records might differ: install the same ones.")
        try:
            _load(plan)
        except Exception as error:
            return Refused(
                f"Node {node_name()} of the Ray cluster cannot load the policy or its environment: "
                f"{type(error).__name__}: {error} What is given by a file or folder (my_policy.py:act, a training run) "
                "must exist on every node, under the same path."
            )
    rows, policy = _loaded[plan.key]
    try:
        return play_shard(rows, policy, shard, lambda ended: None)
    except BaseException as error:
        _forget()  # rollouts are under way
        return Failed.of(error)


def _load(plan: _Plan) -> None:
    import ray

    _forget()
    sys.path[:] = dict.fromkeys([*plan.path, *sys.path])
    gym.logger.min_level = gym.logger.ERROR  # what a worker prints is seen by nobody
    _loaded[plan.key] = ray.get(plan.setup[0]).load()


def _forget() -> None:
    for rows, policy in _loaded.values():
        rows.close()
        if isinstance(policy, IsolatedPolicy):
            policy.close()
    _loaded.clear()
