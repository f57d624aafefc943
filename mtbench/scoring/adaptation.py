"""The adaptation audit in numbers: what an agent loses under a condition, paired case by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtbench.scoring.intervals import Estimate, Floats, Sample
from mtbench.scoring.references import References, Scale
from mtbench.scoring.scored import scored


@dataclass(frozen=True, slots=True)
class Lost:
    """The scored return of the normal condition minus that of another one (:mod:`mtbench.audit`).

    Attributes:
        returns: By task, on the default reward scale.
        means: By scale, the mean over tasks.
    """

    returns: dict[str, Estimate]
    means: dict[str, Estimate]


def lost(
    normal: Floats,
    other: Floats,
    tasks: Sequence[str],
    objective: str,
    references: References,
    interval: str,
    *,
    replicates: int,
    rng: np.random.Generator,
) -> Lost:
    """What an agent loses under another condition.

    Args:
        normal: Returns of shape (runs, tasks, rollouts, attempts).
        other: Returns of the same cases under the other condition.
        tasks: Their names.
        objective: Decides which attempts count.
        references: The scales.
        interval: As for :func:`mtbench.score`; `replicates` too.
        replicates: Of a bootstrap.
        rng: Draws it.
    """
    sample = Sample(normal - other, interval, replicates=replicates, rng=rng)

    def mean(scale: Scale) -> Estimate:
        slopes = scale.slopes(tasks)
        return sample.estimate(lambda v: (scored(v, objective) * slopes).mean(axis=(-2, -1)))[()]

    by_task = sample.estimate(lambda v: scored(v, objective).mean(axis=-2))
    return Lost(
        {task: by_task[i] for i, task in enumerate(tasks)},
        {name: mean(scale) for name, scale in references.scales.items()},
    )
