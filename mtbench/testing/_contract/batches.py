"""Compare two vector environments: all that they return must be equal, bit for bit."""

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode


def assert_equal(ours, theirs, where=""):
    """Compare anything that a vector environment returns, also infos: dictionaries, masks, arrays of objects."""
    assert type(ours) is type(theirs), where
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in theirs.items():
            assert_equal(ours[key], value, f"{where}/{key}")
    elif isinstance(theirs, tuple) or (isinstance(theirs, np.ndarray) and theirs.dtype == object):
        for mine, yours in zip(ours, theirs, strict=True):
            assert_equal(mine, yours, where)
    elif isinstance(theirs, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), where
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
    else:
        assert ours == theirs, where


def assert_equal_to_gymnasiums_own(make, mode, kwargs, steps):
    """Compare our batch with a SyncVectorEnv of the same environments; `steps` may be a function of the batch."""
    ours = make(autoreset_mode=mode, **kwargs)
    alone = {key: value for key, value in kwargs.items() if key != "num_workers"}
    theirs = make(vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **alone)
    assert type(ours).__name__ == "VectorMetaRollout"
    assert ours.observation_space == theirs.observation_space
    assert assert_same_rollouts(ours, theirs, steps(ours) if callable(steps) else steps) > 1


def random_actions(venv, rng):
    space = venv.action_space
    if isinstance(space, gym.spaces.Box):
        return rng.uniform(space.low, space.high).astype(space.dtype)
    return rng.integers(venv.single_action_space.n, size=venv.num_envs)


def assert_same_rollouts(ours, theirs, steps, seed=5, options=None):
    disabled = ours.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert_equal(ours.reset(seed=seed, options=options), theirs.reset(seed=seed, options=options))
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(steps):
        actions = random_actions(ours, rng)
        mine, yours = ours.step(actions), theirs.step(actions)
        for name, a, b in zip(("obs", "reward", "terminated", "truncated", "info"), mine, yours, strict=True):
            assert_equal(a, b, name)
        over = mine[2] | mine[3]
        ended += over.sum()
        if disabled and over.any():
            resets = [venv.reset(options={"reset_mask": over.copy()}) for venv in (ours, theirs)]
            assert_equal(*resets, "reset")
    return ended
