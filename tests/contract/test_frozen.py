"""What an ID shows and draws is frozen, as golden traces freeze what it plays once a task is drawn."""

import hashlib

import gymnasium as gym
import pytest
from gymnasium.spaces import flatten_space

import mtbench  # noqa: F401 (registers the IDs)
from mtbench.registration import TABLE

# By ID: a digest of spaces, attempts, objective and default tasks; tasks and variants that resets draw.
FROZEN = {
    "MTPOPGym-v0": (
        "96c2a3352a938141",
        [("MultiarmedBanditMedium", 341966201), ("PositionOnlyCartPoleEasy", 274782142), ("AutoencodeEasy", 77395102)],
    ),
    "MTProcgen-Easy-v0": ("1b86ead1b03b35c0", [("ninja", 1273), ("leaper", 1023), ("ninja", 69)]),
    "MTProcgen-EasyRescaled-v0": ("1b86ead1b03b35c0", [("ninja", 1273), ("leaper", 1023), ("ninja", 69)]),
    "MTProcgen-MemoryHard-v0": ("7770c283504f9f39", [("plunder", 1273), ("jumper", 1023), ("bossfight", 69)]),
    "MTBabyAI-v0": (
        "4111fd20a339a6b4",
        [("BabyAI-KeyCorridorS3R2-v0", 3185), ("BabyAI-OpenDoorDebug-v0", 2559), ("BabyAI-OneRoomS12-v0", 174)],
    ),
    "ML45-v0": ("c926bd7f53954b51", [("reach-wall-v3", 31), ("handle-pull-v3", 25), ("sweep-v3", 1)]),
    "ML10-v0": ("f10b53485a38c395", [("sweep-v3", 31), ("drawer-close-v3", 25), ("basketball-v3", 1)]),
    "MTAtari-v0": ("a55b81f7253c50dd", [("qbert", 341966201), ("ms_pacman", 274782142), ("seaquest", 18711321)]),
    "MTAtari-Clipped-v0": (
        "a55b81f7253c50dd",
        [("qbert", 341966201), ("ms_pacman", 274782142), ("seaquest", 18711321)],
    ),
}


def shown(row):
    """Spaces by their bounds, since their printed form is Gymnasium's and NumPy's."""
    env = gym.make(row.id).unwrapped
    digest = hashlib.sha256()
    for space in (env.observation_space, env.action_space):
        flat = flatten_space(space)
        digest.update(f"{type(space).__name__} {space.shape} {space.dtype} {flat.dtype}".encode())
        digest.update(flat.low.tobytes() + flat.high.tobytes())
    default = {name: row.suite.split(name).tasks for name in ("train", "test")}
    digest.update(f"{env.k} {env.objective} {env.attempt_reset} {env.max_steps} {default}".encode())
    return digest.hexdigest()[:16]


def drawn(row):
    """Of two seeds, and of the rollout after the second one."""
    env, found = gym.make(row.id).unwrapped, []
    for seed in (0, 1, None):
        env.reset(seed=seed)
        found.append((env.task, env.variant))
    return found


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in TABLE])
def test_what_an_id_shows_and_draws_has_not_changed(row):
    """A failure here means that results will differ: undo the change or register a new version."""
    digest, draws = FROZEN[row.id]
    assert shown(row) == digest
    assert drawn(row) == draws
