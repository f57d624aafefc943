"""How goals.npz was made: goals of every skill, by upstream's own rules for them, from one seed.

    python -m mtbench.suites.metaworld.draw_goals

Upstream's benchmarks draw theirs from NumPy's global generator when they are made, for half a minute. Here each skill
has a generator of its own, so that no skill's goals depend on another's. The file is part of ``-v0``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtbench.records import write_atomically

SEED = 0
GOALS = 200
PATH = Path(__file__).parent / "goals.npz"


def draw(skill: str, number: int) -> npt.NDArray[np.float64]:
    """``(GOALS, D)`` float64: what upstream calls random vectors, of 3 to 6 values.

    Args:
        skill: Such as ``"pick-place-v3"``.
        number: Of its generator.
    """
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    env = ALL_V3_ENVIRONMENTS[skill]()
    env._freeze_rand_vec, env.seeded_rand_vec, env._set_task_called = False, True, True
    env.seed(int(np.random.SeedSequence([SEED, number]).generate_state(1)[0]))
    goals = []
    for _ in range(GOALS):
        env.reset()
        goals.append(np.array(env._last_rand_vec, dtype=np.float64))
    env.close()
    drawn = np.stack(goals)
    assert len(np.unique(drawn, axis=0)) == GOALS
    return drawn


def main() -> None:
    """Write the file."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from rich.progress import track

    goals = {skill: draw(skill, i) for i, skill in enumerate(track(sorted(ALL_V3_ENVIRONMENTS)))}

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **goals)  # type: ignore[arg-type]

    write_atomically(PATH, write)


if __name__ == "__main__":
    main()
