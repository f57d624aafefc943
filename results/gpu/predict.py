"""What an update and an action cost on one H100, predicted from their operations: nothing here was timed on a GPU.

    python results/gpu/predict.py          # writes sizes.csv and costs.csv here
    python results/pages.py                # writes them into README.md

Operations run on fake tensors, which have shapes and no values. Counted are the floating-point operations of matrix
products (backward included), the bytes that all operations read and write when none is fused, and kernel launches.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
from mtbench_agents.transformer import acting, learner
from mtbench_agents.transformer.acting import ActingModel, Inputs
from mtbench_agents.transformer.config import TrainConfig, preset
from mtbench_agents.transformer.encoders.grid import GridMissionEncoder
from mtbench_agents.transformer.learner import Learner
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.slices import Slices
from mtbench_agents.transformer.throughput import VIEWS
from mtbench_agents.transformer.trees import leaves, tree_map
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mtbench.records import write_atomically

HERE = Path(__file__).parent
# NVIDIA H100 SXM5 data sheet: dense bf16, and memory. A launch: what PyTorch's eager mode needs on a host, about.
# The least time of a kernel within a CUDA graph, about.
FLOPS, BANDWIDTH, LAUNCH, KERNEL = 989e12, 3.35e12, 5e-6, 1.5e-6
# The columns of the paper's tables, and the presets that are for a CPU.
COLUMNS = ("MTPOPGym-v0", "MTProcgen-Easy-v0", "MTProcgen-MemoryHard-v0", "MTAtari-v0", "ML45-v0", "MTBabyAI-v0")
OTHERS = ("small", "quick", "debug")
DENSITY = 0.36  # share of a batch of MTPOPGym-v0 that is real timesteps, measured in a run on a CPU


class Traffic(TorchDispatchMode):
    """Counts launches and bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and count."""
        out = function(*args, **(kwargs or {}))
        library, _, name = function._schema.name.partition("::")
        if library == "aten" and name not in VIEWS:
            self.launches += 1
            # It writes into a few places of a large tensor.
            touched = args[1:] if name == "index_put_" else (args, kwargs, out)
            tensors = [leaf for leaf in tree_leaves(touched) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


def counted(work: Callable[[], Any]) -> dict[str, float]:
    """Of one call, after a first one that makes fake tensors of the weights."""
    work()
    with FlopCounterMode(display=False) as flops, Traffic() as traffic:
        work()
    return {"flops": float(flops.get_total_flops()), "bytes": float(traffic.bytes), "launches": traffic.launches}


def predicted(config: TrainConfig) -> dict[str, dict[str, float]]:
    """Of an update and of an action of 256 environments, half a context into their rollouts; and sizes."""
    env = gym.make(config.env_id)
    space, actions = env.observation_space, env.action_space
    example = env.reset(seed=0)[0]
    env.close()
    B, W = config.learning.batch_size, config.model.context + 1
    # Rows are 5 % longer than what is in them.
    filled = B * DENSITY if config.env_id == "MTPOPGym-v0" else B
    if config.learning.batch_timesteps is not None:
        filled = min(filled, config.learning.batch_timesteps / config.model.context)
    R = max(1, round(filled * 1.05)) if filled < B else B
    model = AgentModel.seeded(0, config.model, config.learning, space, actions)
    own = Learner(model, dataclasses.replace(config.learning, compile=False), 0, torch.device("cpu"))
    own.compile = True  # all timesteps at once, as on a GPU
    copy = ActingModel(model)
    spec = model.actions
    shape, kind = ((), torch.int64) if spec.discrete else ((spec.size,), torch.float32)

    def observed(count: int) -> Any:
        return tree_map(
            lambda one: torch.zeros(count, *np.shape(one), dtype=torch.from_numpy(np.array(one)).dtype), example
        )

    with FakeTensorMode(allow_non_fake_inputs=True):
        places = R * (W - 1)
        slices = Slices(
            observations=observed(R * W),
            actions=torch.zeros(R, W, *shape, dtype=kind),
            rewards=torch.zeros(R, W),
            steps=torch.zeros(R, W, dtype=torch.int64),
            segment=torch.zeros(R, W, dtype=torch.int64) if R < B else None,
            there=None,
            exists=torch.ones(R * W, dtype=torch.bool),
            sequence=torch.zeros(R * W, dtype=torch.int64),
            row=torch.zeros(places, dtype=torch.int64),
            place=torch.zeros(places, dtype=torch.int64),
            ahead=torch.ones(places, dtype=torch.int64),
            terminated=torch.zeros(places, dtype=torch.bool),
            weight=torch.ones(places),
        )
        model.train()
        if isinstance(model.encoder, GridMissionEncoder):
            model.encoder.reads_once = copy.encoder.reads_once = False
        update = counted(lambda: own.gradients(slices))
        parameters = sum(p.numel() for p in model.optimized())
        update["bytes"] += parameters * 4 * 7  # AdamW: reads weight, gradient and moments, writes three of them
        n, used = 256, config.model.context // 2
        inputs = Inputs(
            observation=observed(n),
            previous_action=torch.zeros(n, *shape, dtype=kind),
            previous_reward=torch.zeros(n),
            steps=torch.zeros(n, dtype=torch.int64),
            noise=torch.zeros(n, 1 if spec.discrete else spec.size),
        )
        cache = copy.backbone.new_memory(n, torch.device("cpu"), torch.bfloat16)
        action = counted(lambda: copy(inputs, cache, used))
    timestep = sum(np.asarray(leaf).nbytes for leaf in leaves(example)) + 4 + (8 if spec.discrete else 4 * spec.size)
    memory = 2 * config.model.layers * config.model.context * config.model.width * 2
    sizes = {
        "parameters": parameters,
        "replay": timestep * config.collect.replay,
        "acting": memory * config.collect.num_envs,
    }
    return {"update": update, "action": action, "sizes": sizes}


def row(name: str, env_id: str) -> tuple[dict[str, object], list[dict[str, object]]]:
    """A preset's line of each table."""
    costs = predicted(preset(name, env_id))
    size = costs.pop("sizes")
    of = {"preset": name, "environment": env_id}
    disk, memory = f"{size['replay'] / 1e9:.1f}", f"{size['acting'] / 1e6:.0f}"
    sizes = {**of, "parameters": size["parameters"], "replay on disk, GB": disk, "memory of acting, MB": memory}
    lines = []
    for work, cost in costs.items():
        times = {
            "compute": cost["flops"] / FLOPS,
            "memory": cost["bytes"] / BANDWIDTH,
            "launches": cost["launches"] * LAUNCH,
        }
        graphed = max(times["compute"] + times["memory"], cost["launches"] * KERNEL)
        unit, per = (1, "updates") if work == "update" else (256, "steps")
        lines.append(
            {
                **{**of, "work": work, "GFLOP": f"{cost['flops'] / 1e9:.1f}", "GB": f"{cost['bytes'] / 1e9:.2f}"},
                **{"launches": cost["launches"], **{f"{key} ms": f"{1e3 * value:.2f}" for key, value in times.items()}},
                **{"bound by": max(times, key=times.__getitem__), "a second": f"{unit / graphed:,.0f} {per}"},
            }
        )
    return sizes, lines


def half_precision() -> None:
    """Count as on a GPU."""
    for module in (learner, acting):
        module.half_precision = lambda device: True  # type: ignore[attr-defined]


def main() -> None:
    """Write both files."""
    half_precision()
    presets = [*(("paper", env_id) for env_id in COLUMNS), *((name, COLUMNS[0]) for name in OTHERS)]
    sizes, costs = zip(*(row(*each) for each in presets), strict=True)
    frames = {"sizes.csv": pd.DataFrame(sizes), "costs.csv": pd.DataFrame([line for lines in costs for line in lines])}
    for name, frame in frames.items():
        write_atomically(HERE / name, lambda path, frame=frame: frame.to_csv(path, index=False))


if __name__ == "__main__":
    main()
