"""Time an update and a batched action on this device, on random rollouts of full context."""

from __future__ import annotations

import math
import resource
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from .acting import ActingModel, Player
from .config import TrainConfig
from .learner import Learner
from .model import AgentModel
from .prefetch import batches
from .replay import Replay, Rollout
from .slices import Prepared
from .throughput import wait
from .trees import tree_map

_ACTIONS = 20
# Of a shape, and not timed: they count operations, compile, and record what is replayed.
_FIRST_ON_GPU = 4


def measure(config: TrainConfig, updates: int) -> dict[str, Any]:
    """Times, memory and sizes.

    Args:
        config: Sizes and environment; nothing is collected from it.
        updates: Timed updates, after a few that are not; 0 times actions alone.

    Returns:
        ``seconds_per_update``, ``ms_per_batched_action``, ``tokens_per_s``, ``flop_utilization`` (1 is the speed of a
        large matrix product), ``peak_memory_gib``, ``parameters``, ``device`` and the sizes they are for. What was not
        timed is NaN.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    env = gym.make(config.env_id, **config.env)
    rng = np.random.default_rng(config.seed)
    spaces = env.observation_space, env.action_space
    model = AgentModel.seeded(config.seed, config.model, config.learning, *spaces)
    learner = Learner(model, config.learning, config.seed, device, context=config.model.context)
    B, L = config.learning.batch_size, config.model.context
    if config.learning.batch_timesteps is not None:
        B = min(B, -(-config.learning.batch_timesteps // L))
    player = Player(config.collect.num_envs, env.action_space, rng, device)
    replay = _filled(env, player, L, rng)

    def update(times: int) -> float:
        def sample(number: int) -> Prepared:
            return learner.prepare(replay.sample(B, L, rng))

        wait(device)
        began = time.perf_counter()
        for batch in batches(sample, range(times), device):
            learner.update(batch)
        wait(device)
        return (time.perf_counter() - began) / times

    first = _FIRST_ON_GPU if device.type == "cuda" else 1
    seconds = math.nan
    if updates:
        update(first)
        seconds = update(updates)

    acting = ActingModel(model)
    shown = tree_map(lambda kept: np.stack([kept[0]] * config.collect.num_envs), replay.observations)

    def act(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            player.took(player.act(acting, shown))
        return (time.perf_counter() - began) / times

    if device.type == "cpu":  # which reads memory that nobody wrote to faster than any other
        act(1)
    # Half a context into a rollout: the average length that attention sees.
    state = {**player.state(), "steps": np.full(config.collect.num_envs, L // 2)}
    for name in state.keys() & {"keys", "values"}:
        one = state[name]
        state[name] = np.broadcast_to(one, (*one.shape[:-2], L // 2, one.shape[-1]))
    player.load_state(state, acting)
    act(first)
    action_seconds = act(_ACTIONS)
    env.close()
    return {
        "seconds_per_update": seconds,
        "ms_per_batched_action": 1000 * action_seconds,
        "tokens_per_s": B * L / seconds,
        "flop_utilization": learner.flop_utilization(B * L / seconds),
        "peak_memory_gib": _peak_memory(device),
        "parameters": sum(p.numel() for p in model.optimized()),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "batch_size": B,
        "context": L,
        "envs": config.collect.num_envs,
    }


def _filled(env: gym.Env[Any, Any], player: Player, length: int, rng: np.random.Generator) -> Replay:
    """A replay with rollouts of exactly `length` steps."""
    action = player.previous_action[0]
    example = random_observations(env.observation_space, 1, rng)
    replay = Replay(8 * (length + 1), tree_map(lambda array: array[0], example), action)
    for _ in range(8):
        actions: Any
        if action.ndim:
            actions = rng.uniform(-1, 1, size=(length, *action.shape)).astype(np.float32)
        else:
            assert isinstance(env.action_space, gym.spaces.Discrete)
            actions = rng.integers(env.action_space.n, size=length)
        rewards = rng.normal(size=length).astype(np.float32) / length
        replay.add(Rollout(random_observations(env.observation_space, length + 1, rng), actions, rewards, True))
    return replay


def random_observations(space: gym.Space[Any], count: int, rng: np.random.Generator) -> Any:
    """Random observations of one rollout, a tree of ``(count, ...)``. A mission lasts for all of it."""
    if isinstance(space, gym.spaces.Dict):
        return {name: random_observations(part, count, rng) for name, part in space.spaces.items()}
    if isinstance(space, gym.spaces.MultiDiscrete):
        return np.repeat(rng.integers(space.nvec)[None].astype(space.dtype), count, axis=0)
    assert isinstance(space, gym.spaces.Box), f"The agent has no encoder for {space}."
    if np.issubdtype(space.dtype, np.integer):
        return rng.integers(space.low, space.high, size=(count, *space.shape), dtype=space.dtype, endpoint=True)
    return rng.normal(size=(count, *space.shape)).astype(space.dtype)


def _peak_memory(device: torch.device) -> float:
    """Of the device, or of this process where that is the CPU. GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
