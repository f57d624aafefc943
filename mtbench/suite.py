"""A suite declares a domain: its tasks, splits and variants, and how one attempt of a task is played.

Attempts, seeding, label hiding and statistics are the same for all suites and are implemented in
:mod:`mtbench.rollout`. A suite's engine for batches, its oracle and its references for scores are in the suite's own
folder. The suite names them by import strings, so that they load only when they are needed.

To add a suite to this package, subclass :class:`Suite` in a new folder under ``mtbench/suites`` whose module ends in
``SUITES = {"name": YourSuite()}``, and add its rows to :mod:`mtbench.registration`. A suite of another package only
needs a call of :func:`mtbench.register`; ``examples/pendulum`` is an example.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from mtbench.errors import UsageError, missing_extra_error, unknown_name_error

Frame = npt.NDArray[np.uint8]
AttemptVariants = Literal["same", "new"]


@dataclass(frozen=True, slots=True)
class VariantRange:
    """The variants ``start <= v < stop``. A variant is an integer that fixes every latent draw of an attempt."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise UsageError(f"A variant range needs 0 <= start < stop, got [{self.start}, {self.stop}).")

    def __contains__(self, variant: object) -> bool:
        return isinstance(variant, int) and self.start <= variant < self.stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})"

    def sample(self, rng: np.random.Generator, n: int) -> list[int]:
        """N variants, uniformly and independently, as Python ints."""
        # One scalar draw at a time: n is small, and drawing an array costs as much as four scalars.
        return [int(rng.integers(self.start, self.stop)) for _ in range(n)]


@dataclass(frozen=True, slots=True)
class VariantList:
    """An explicit list of variants, for splits that cannot use a whole range."""

    values: tuple[int, ...]

    def __contains__(self, variant: object) -> bool:
        return variant in self.values

    def __len__(self) -> int:
        return len(self.values)

    def __str__(self) -> str:
        return f"{len(self)} listed from {min(self.values)} to {max(self.values)}"

    def sample(self, rng: np.random.Generator, n: int) -> list[int]:
        """N variants, uniformly and independently, as Python ints."""
        return [self.values[int(rng.integers(len(self.values)))] for _ in range(n)]


Variants = VariantRange | VariantList


@dataclass(frozen=True, slots=True)
class Task:
    """A qualitatively distinct objective, such as one game at one difficulty.

    Attributes:
        name: Upstream's own name.
        base: The import string of the base environment's class, ``"module:attribute"``. "" if the suite makes its base
            environments itself.
        family: Tasks of one family differ only in difficulty.
        max_steps: The longest attempt, in base-environment steps.
    """

    name: str
    base: str
    family: str
    max_steps: int


@dataclass(frozen=True, slots=True)
class Split:
    """Which tasks and which variants may be drawn.

    Attributes:
        name: ``"train"`` or ``"test"``, or another that the suite offers.
        tasks: Names, in the suite's order.
        variants: The variants that ``reset`` draws from.
        evaluation: The variants that evaluation draws from. They are disjoint from all variants used in training, with
            one exception: Procgen's train split evaluates on the training levels, because returns on them are a
            published measure.
        extra_tasks: Optional further tasks, played only if ``tasks=`` names them.
        validation: The variants that validation draws from, to choose between models during training. They are
            disjoint from `evaluation` if the suite has enough variants. None: the split is held out, and no model may
            be chosen on it.
    """

    name: str
    tasks: tuple[str, ...]
    variants: Variants
    evaluation: Variants
    extra_tasks: tuple[str, ...] = ()
    validation: Variants | None = None

    @property
    def parts(self) -> tuple[Variants, ...]:
        """All variants that may be pinned: those for ``reset``, for evaluation and for validation."""
        return (self.variants, self.evaluation, *([self.validation] if self.validation is not None else []))


def seed_splits(tasks: Sequence[str], extra_tasks: Sequence[str] = ()) -> dict[str, Split]:
    """Train and test splits for suites where any seed is a valid variant. All ranges of variants are disjoint."""
    block = 2**29
    ranges = [VariantRange(i * block, (i + 1) * block) for i in range(4)]
    middle = block + block // 2
    evaluation, validation = VariantRange(block, middle), VariantRange(middle, 2 * block)
    return {
        "train": Split("train", tuple(tasks), ranges[0], evaluation, tuple(extra_tasks), validation),
        "test": Split("test", tuple(tasks), ranges[2], ranges[3], tuple(extra_tasks)),
    }


@dataclass(slots=True)
class Progress:
    """What an agent may know about its own rollout, on any suite. It does not reveal the task.

    Attributes:
        k: Attempts in the rollout.
        elapsed: Steps taken since the rollout began, the ignored one between two attempts included.
        attempt: Index of the current attempt, from 0.
        attempt_steps: Base-environment steps taken in the current attempt.
        attempt_start: Whether the current observation is the first of its attempt.
        action_valid: Whether the previous action existed in the task being played.
        reward: The previous step's reward on the default scale, also while the agent is paid nothing.
    """

    k: int
    elapsed: int = 0
    attempt: int = 0
    attempt_steps: int = 0
    attempt_start: bool = True
    action_valid: bool = True
    reward: float = 0.0


class Codec(Protocol):
    """Translates between one task's native spaces and the suite's shared ones."""

    @property
    def actions(self) -> Sequence[Any] | None:
        """The task's native actions in the order of their index in the shared ``Discrete`` space.

        None where the base environment takes the agent's action as it is.
        """

    def encode(self, observation: Any, progress: Progress) -> Any:
        """The agent's observation: a new object on every call, inside the suite's observation space."""


class Suite(ABC):
    """One multi-task domain.

    Attributes:
        name: The suite's name, also in records: lower-case letters, digits and dashes. In this package it is the folder
            under ``mtbench.suites``, or ``folder-kind`` where a folder has several suites.
        title: The name people use.
        engine: The :class:`~mtbench.vector.engine.Engine` that plays batches, as ``"module:class"``. "" for none:
            batches then step single environments one after the other.
        oracle: The scripted expert, as ``"module:function"``: ``function(rollout)`` reads the hidden state of a
            :class:`~mtbench.rollout.MetaRollout` and returns an action. "" for none.
        references: The JSON file with the suite's normalization constants, as ``"package:file.json"`` (its layout:
            :mod:`mtbench.scoring.references`). "" for none: scores then show plain returns.
        extra: The extra of this project that installs what the suite needs; "" for suites of other packages.
        distributions: Installed packages whose versions belong in every record.
        packages: Import names of the packages that the suite needs.
        tasks: Every task by name, in the suite's order.
        splits: ``"train"`` and ``"test"``, and optional further ones, by name.
        attempt_variants: Whether later attempts play the ``"same"`` variant or a ``"new"`` one.
        single_attempt: The rollout's last step returns the base environment's own ``terminated`` and ``truncated``.
        has_success: Whether :meth:`success` is defined.
        shows_reward: Whether the codec's observations show the previous reward on the default scale. Under k-shot it is
            added to the observations of all other suites.
        frame_shape: Shape of every rendered frame.
        frames_per_second: Frame rate of videos.
        refused: Upstream's tasks that the suite cannot play, with the reason.
        departures: Where the suite differs from the published settings, one sentence each with its source.
        repeats: Held-out tasks that are the same environment as a training task, mapped to that task. Scores are given
            with and without them.
        seen_variants: By split and task, the share of evaluation variants that begin exactly like a training variant,
            where it was measured (``results/``). Scores on such variants measure memorization too.
        remarks: By task, a sentence that is printed with its scores.
    """

    name: str
    title: str
    engine: str = ""
    oracle: str = ""
    references: str = ""
    extra: str = ""
    distributions: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    tasks: Mapping[str, Task]
    splits: Mapping[str, Split]
    attempt_variants: AttemptVariants
    single_attempt: bool = False
    has_success: bool = False
    shows_reward: bool = False
    frame_shape: tuple[int, int, int]
    frames_per_second: int = 10
    refused: Mapping[str, str] = MappingProxyType({})
    departures: tuple[str, ...] = ()
    repeats: Mapping[str, str] = MappingProxyType({})
    seen_variants: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    remarks: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def observation_space(self, k: int) -> gym.Space[Any]:
        """The observation space of a k-attempt rollout, equal for all tasks."""

    @abstractmethod
    def action_space(self) -> gym.Space[Any]:
        """The action space, equal for all tasks."""

    @abstractmethod
    def codec(self, task: Task, base: gym.Env[Any, Any]) -> Codec:
        """The translator between `task`'s native spaces and the shared ones."""

    @abstractmethod
    def render(self, base: gym.Env[Any, Any], task: Task, progress: Progress) -> Frame:
        """A picture for people, of shape :attr:`frame_shape` and dtype uint8; it may show what the agent cannot see."""

    def make_base(self, task: Task) -> gym.Env[Any, Any]:
        """One base environment of `task`."""
        base: gym.Env[Any, Any] = imported(task.base)()
        return base

    def start(self, base: gym.Env[Any, Any], variant: int) -> Any:
        """Begin an attempt of `variant` and return the base observation."""
        return base.reset(seed=variant)[0]

    def success(self, reward: float, info: dict[str, Any]) -> bool:
        """Whether this step makes its attempt a success. Called only where :attr:`has_success`."""
        raise NotImplementedError

    def return_bounds(self, task: Task) -> tuple[float, float]:
        """The lowest and highest possible return of one attempt of `task`. Records outside these bounds are refused."""
        return -1e9, 1e9

    def require_packages(self) -> None:
        """Check that the suite's packages are installed.

        Raises:
            gymnasium.error.DependencyNotInstalled: One is missing; the message has the line that installs it.
        """
        for package in self.packages:
            try:
                importlib.import_module(package)
            except ModuleNotFoundError as error:
                if error.name != package:
                    raise
                raise missing_extra_error(package, self.extra, f"The {self.title} suite") from None

    def split(self, name: str) -> Split:
        """A split by name.

        Raises:
            ValueError: There is no such split.
        """
        if name not in self.splits:
            raise unknown_name_error("split", name, list(self.splits), f"suite {self.name!r}")
        return self.splits[name]


def imported(name: str) -> Any:
    """Import the object that ``"module:attribute"`` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def read_data(package: str, file: str) -> Any:
    """The content of a JSON file that ships with a package."""
    return json.loads((resources.files(package) / file).read_text())


def load_suite(suite: str | Suite) -> Suite:
    """Load a suite of this package by name (``"popgym"``, ``"procgen-easy"``), or any suite by import string.

    Args:
        suite: A name, ``"my_package.my_suite:SUITE"``, or a suite, which is returned as it is.

    Raises:
        ValueError: There is no such suite.
    """
    if isinstance(suite, Suite):
        return suite
    if ":" in suite:
        found = imported(suite)
        if not isinstance(found, Suite):
            raise UsageError(f"{suite!r} is a {type(found).__name__}, not a mtbench.suite.Suite.")
        return found
    first = suite.partition("-")[0]
    folder = f"mtbench.suites.{first}"
    if not first.isidentifier() or importlib.util.find_spec(folder) is None:
        from mtbench.registration import TABLE

        raise unknown_name_error("suite", suite, sorted({row.kwargs["suite"] for row in TABLE}), "mtbench")
    suites: Mapping[str, Suite] = importlib.import_module(folder).SUITES
    if suite not in suites:
        raise unknown_name_error("suite", suite, list(suites), folder)
    return suites[suite]
