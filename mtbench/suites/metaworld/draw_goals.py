"""The script that made goals.npz: it draws goals of every skill by upstream's rules, from one seed.

    python -m mtbench.suites.metaworld.draw_goals

Upstream's benchmarks draw goals from NumPy's global generator when they are made, which takes half a minute. Here each
skill has its own generator, so that its goals do not depend on other skills. The file is part of ``-v0``: other goals
would need a new version.
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
    """Goals of a skill, ``(GOALS, D)`` float64: upstream's "random vectors", of 3 to 6 values.

    Args:
        skill: Such as ``"pick-place-v3"``.
        number: The number of the skill's generator.
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
    """Write goals.npz."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from rich.progress import track

    goals = {skill: draw(skill, i) for i, skill in enumerate(track(sorted(ALL_V3_ENVIRONMENTS)))}

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **goals)  # type: ignore[arg-type]

    write_atomically(PATH, write)


if __name__ == "__main__":
    main()
