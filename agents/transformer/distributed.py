"""Several processes that learn as one: the ranks of ``torchrun``.

Every rank has the same weights, environments of its own and its own part of the replay. A batch is the parts that all
ranks draw; what is added up over ranks makes an update the one that a single process would do with the whole batch:
gradients and the numbers of the log (in one buffer, each rank's part weighted by its share of the transitions), and
the moments of :class:`~.encoders.base.InputNorm` and :class:`~.objectives.PopArt`.

Decisions are made together. A method of :class:`Ranks` that talks to the others is called by all of them, in the same
order. Only :class:`Group` uses ``torch.distributed``; one process has :data:`ALONE`, where all of this does nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from mtbench.errors import UsageError
from mtbench.jobs import pickled

from .config import TrainConfig, remote_count
from .objectives import AddUp
from .slices import Prepared

T = TypeVar("T")

# How long a rank waits for the others. A rank whose process ends is noticed at once; this is for a machine that hangs.
# The longest wait in a healthy run is for the first rollouts, or for a shard of an evaluation.
_PATIENCE = timedelta(hours=1)

# Room for the numbers of the log, behind the gradients.
_NUMBERS = 32


class RankLostError(UsageError):
    """The process of another rank has ended, or cannot be reached."""


class Ranks:
    """The processes that learn together: this one alone.

    Attributes:
        rank: The number of this one; rank 0 writes the files.
        count: How many there are.
        add_up: Adds up tensors over ranks; None where there is nothing to add.
    """

    rank: int = 0
    count: int = 1
    add_up: AddUp | None = None

    def seed(self, seed: int) -> int:
        """A seed of this rank's own; rank 0 keeps the run's."""
        if not self.rank:
            return seed
        return int(np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)[0] >> 1)

    def any(self, flag: bool) -> bool:
        """Whether the flag is True on any rank."""
        return flag

    def gathered(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        return [value]

    def handed_in(self, value: T) -> list[T]:
        """The values of all ranks on rank 0; nothing on the others."""
        return [value]

    def together(self, work: Callable[[], T]) -> T:
        """Do something on every rank. Where one of them fails, all raise its error: the error of the lowest."""
        return work()

    def first(self, work: Callable[[], T]) -> T | None:
        """Do something on rank 0 while the others wait; they get None. Where it fails, all raise the error."""
        return work()

    def agreed(self, prepared: Prepared) -> Prepared:
        """A batch, of which this rank has a part: the transitions and the faults of all parts."""
        return prepared

    def gradient_sum(self, parameters: Sequence[Tensor]) -> GradientSum | None:
        """What adds up the gradients of an update; None for one process."""
        return None


ALONE = Ranks()


class Group(Ranks):
    """The ranks of a process group that has been set up, one or more.

    Args:
        device: Of the model. Its sums are made there, by NCCL on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        import torch.distributed as dist

        self.rank: int = dist.get_rank()
        self.count: int = dist.get_world_size()
        self._dist = dist
        # Sums of an update, batches and decisions each have a group: batches may be made ready in a thread of its own.
        self._sums = dist.new_group(backend="nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        self._batches = dist.new_group(backend="gloo", timeout=_PATIENCE)
        self._host = dist.new_group(backend="gloo", timeout=_PATIENCE)
        # A function, not a method: copies of a model share it.
        self.add_up: AddUp = _adder(self._sums)

    def any(self, flag: bool) -> bool:
        """Whether the flag is True on any rank."""
        flags = torch.tensor(flag, dtype=torch.int64)
        self._dist.all_reduce(flags, group=self._host)
        return bool(flags)

    def gathered(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        found: list[Any] = [None] * self.count
        self._dist.all_gather_object(found, value, group=self._host)
        return found

    def handed_in(self, value: T) -> list[T]:
        """The values of all ranks on rank 0; nothing on the others."""
        found: list[Any] | None = [None] * self.count if self.rank == 0 else None
        self._dist.gather_object(value, found, dst=0, group=self._host)
        return found or []

    def together(self, work: Callable[[], T]) -> T:
        """Do something on every rank. Where one of them fails, all raise its error: the error of the lowest."""
        value, error = _outcome(work)
        self._raise_first(error, self.gathered(sendable_error(error)))
        return value  # type: ignore[return-value]

    def first(self, work: Callable[[], T]) -> T | None:
        """Do something on rank 0 while the others wait; they get None. Where it fails, all raise the error."""
        value, error = _outcome(work) if self.rank == 0 else (None, None)
        self._raise_first(error, [self.said(sendable_error(error))])
        return value

    def said(self, value: Any = None) -> Any:
        """What rank 0 says to all: its `value`."""
        values = [value]
        self._dist.broadcast_object_list(values, src=0, group=self._host)
        return values[0]

    def _raise_first(self, own: Exception | None, errors: Sequence[Exception | None]) -> None:
        for rank, error in enumerate(errors):
            if error is not None:
                raise own if rank == self.rank and own is not None else error

    def agreed(self, prepared: Prepared) -> Prepared:
        """A batch, of which this rank has a part: the transitions and the faults of all parts."""
        own = torch.tensor([prepared.tokens, prepared.fault is not None])
        parts = [torch.empty_like(own) for _ in range(self.count)]
        self._dist.all_gather(parts, own, group=self._batches)
        tokens, faults = torch.stack(parts).sum(dim=0).tolist()
        fault = None
        if faults:
            told: list[Any] = [None] * self.count
            self._dist.all_gather_object(told, prepared.fault, group=self._batches)
            fault = next(f"{what} on rank {rank}" for rank, what in enumerate(told) if what)
        share = prepared.tokens / max(1, tokens)
        return dataclasses.replace(prepared, tokens=tokens, share=share, fault=fault)

    def gradient_sum(self, parameters: Sequence[Tensor]) -> GradientSum:
        """What adds up the gradients of an update."""
        return GradientSum(parameters, lambda flat: self._dist.all_reduce(flat, group=self._sums))


class GradientSum:
    """The gradients and the numbers of an update, in one buffer, which is added up over all ranks at once.

    A rank's own are means over its own transitions. Weighted by its share of all transitions they add up to the means
    over all of them, whatever the numbers of transitions are.

    Args:
        parameters: Of the model.
        add_up: Adds up the buffer, in place.

    Attributes:
        gradients: Of the parameters: parts of the buffer. One that is never written stays 0.
        share: ``()``: this rank's share of the transitions of the update.
    """

    def __init__(self, parameters: Sequence[Tensor], add_up: Callable[[Tensor], object]) -> None:
        self._add_up = add_up
        sizes = [parameter.numel() for parameter in parameters]
        one = parameters[0]
        self._flat = torch.zeros(sum(sizes) + _NUMBERS, dtype=one.dtype, device=one.device)
        *parts, self._numbers = torch.split(self._flat, [*sizes, _NUMBERS])
        self.gradients: Final = [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]
        self.share: Final = torch.zeros((), dtype=one.dtype, device=one.device)

    def add_up(self, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add up the gradients in place, and return the sums of the numbers."""
        own = torch.stack([number.to(self._flat.dtype) for number in numbers.values()])
        self._numbers[: len(own)].copy_(own)
        self._flat.mul_(self.share)
        self._add_up(self._flat)
        return dict(zip(numbers, self._numbers[: len(own)].clone().unbind(), strict=True))


def _adder(group: Any) -> AddUp:
    """Add up tensors over the ranks of a group, all of them at once. It may be compiled."""
    import torch.distributed as dist

    def add_up(*tensors: Tensor) -> list[Tensor]:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat, group=group)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    return add_up


def _outcome(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def sendable_error(error: Exception | None) -> Exception | None:
    """The error, or one with its words if it cannot be pickled."""
    if pickled(error) is None:
        return RuntimeError(f"Another rank failed: {type(error).__name__}: {error}")
    return error


# ---- begin and end ----


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other ranks if ``torchrun`` started this process beside others; else it is :data:`ALONE`.

    Of a machine's GPUs each rank sees one from now on.

    Raises:
        UsageError: A machine has fewer GPUs than ranks.
        RankLostError: In the context, another rank's process has ended.
    """
    count = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if count == 1:
        yield ALONE
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    take_gpu(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count())
    try:
        store, rank, _ = next(rendezvous("env://", timeout=_PATIENCE))
        # Of the processes before a restart, the store may still have the addresses: static rendezvous keeps it.
        store = PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=_PATIENCE)
        yield Group(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        if not _is_of_the_group(error):
            raise
        raise RankLostError(
            f"Rank {os.environ['RANK']} has lost another rank, whose own message says why if its process was not "
            "killed. The same command goes on from the newest checkpoint; with --max-restarts, torchrun gives it."
        ) from error
    dist.destroy_process_group()


def take_gpu(local_rank: int, ranks: int, gpus: int) -> None:
    """Let this process see one of its machine's GPUs, before PyTorch sets them up; nothing where there is none.

    Args:
        local_rank: Of this process on its machine.
        ranks: On its machine.
        gpus: That it sees now.

    Raises:
        UsageError: There are fewer GPUs than ranks.
    """
    if not gpus:
        return
    if ranks > gpus:
        raise UsageError(
            f"This machine has {ranks} ranks and {gpus} GPUs: at most one rank for each (--nproc-per-node {gpus})."
        )
    seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
    os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[local_rank]


def _is_of_the_group(error: RuntimeError) -> bool:
    """Whether an error is the connection's. Gloo raises plain errors that name its source files."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error)


# ---- what a rank has of a run ----


def share_of(config: TrainConfig, ranks: Ranks) -> TrainConfig:
    """The settings of one rank: its seed, and its part of the environments, the batch, the replay and all steps.

    Raises:
        UsageError: Environments or the batch cannot be divided evenly, or collectors on Ray are asked for.
    """
    if ranks.count == 1:
        return config
    if remote_count(config.collectors) is not None:
        raise UsageError("Several ranks collect for themselves: leave out --collectors, or start one process.")
    c, count = config.collect, ranks.count
    for name, whole in (("collect.num_envs", c.num_envs), ("learning.batch_size", config.learning.batch_size)):
        if whole % count:
            near = max(count, round(whole / count) * count)
            raise UsageError(
                f"`{name}` is {whole}, which {count} ranks cannot share evenly. Set it to a multiple of {count} "
                f"({name}={near}, say), or start another number of ranks."
            )
    collect = dataclasses.replace(
        c,
        num_envs=c.num_envs // count,
        replay=max(2, c.replay // count),
        replay_rollouts=None if c.replay_rollouts is None else max(1, c.replay_rollouts // count),
        epsilon_steps=c.epsilon_steps // count,
        steps_per_update=c.steps_per_update / count,
        first_steps=-(-c.first_steps // count),
    )
    timesteps = config.learning.batch_timesteps
    learning = dataclasses.replace(
        config.learning,
        batch_size=config.learning.batch_size // count,
        batch_timesteps=None if timesteps is None else max(1, timesteps // count),
    )
    return dataclasses.replace(config, seed=ranks.seed(config.seed), collect=collect, learning=learning)
