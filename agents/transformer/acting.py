"""Act in many environments at once, with a memory of each rollout.

:class:`ActingModel` is a copy of what acting needs of a network, with the factors of its layers multiplied in. It can
take the newest weights while the learner works on, through :class:`NewestWeights`. :class:`Player` remembers rollouts.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .cache import Memory
from .graphs import one_graph, replayed
from .heads import DiscretePolicy, GaussianPolicy
from .model import ActionSpec, AgentModel
from .precision import half_precision
from .trees import named_map, tree_map

Array = npt.NDArray[Any]

# On a GPU, attention looks at a multiple of this many timesteps, so that there are few compiled graphs.
_SLOTS = 128

# Environments for each thread of a CPU, at least: with fewer, starting it takes longer than it saves.
_WORTH_A_THREAD = 32


class Inputs(NamedTuple):
    """What N environments show and what is drawn for them, on the model's device.

    Attributes:
        observation: A tree of ``(N, ...)``.
        previous_action: ``(N,)`` int64 or ``(N, A)`` float32.
        previous_reward: ``(N,)`` float32.
        steps: ``(N,)`` int64: steps of the rollouts so far.
        noise: ``(N, 1)`` float32 from [0, 1) for discrete actions, ``(N, A)`` from a standard normal else.
    """

    observation: Any
    previous_action: Tensor
    previous_reward: Tensor
    steps: Tensor
    noise: Tensor


class ActingModel(nn.Module):
    """The encoder, backbone and actor of a network, for acting alone.

    Args:
        model: The network; its weights are copied.
    """

    #: Whether a GPU may replay the step as a graph.
    compilable = True

    def __init__(self, model: AgentModel) -> None:
        super().__init__()
        self.actions: Final = model.actions
        self.encoder: Final = copy.deepcopy(model.encoder)
        self.backbone: Final = copy.deepcopy(model.backbone)
        self.actor: Final = copy.deepcopy(model.actor)
        self.requires_grad_(False)
        self.eval()
        for layer in self.backbone.reparametrized():
            layer.fold()

    @torch.no_grad()
    def load(self, model: AgentModel | ActingModel) -> None:
        """Copy the weights and statistics of a network, or of another acting model."""
        torch._foreach_copy_(_tensors(self), _tensors(model))
        if isinstance(model, AgentModel):
            for layer in self.backbone.reparametrized():
                layer.fold()

    def weights(self) -> list[Array]:
        """Copies of what :meth:`take` takes."""
        return [tensor.cpu().numpy().copy() for tensor in _tensors(self)]

    @torch.no_grad()
    def take(self, weights: list[Array]) -> None:
        """Copy the weights of another acting model of the same sizes."""
        torch._foreach_copy_(_tensors(self), [torch.from_numpy(np.array(one)) for one in weights])

    @torch.no_grad()
    def forward(self, inputs: Inputs, memory: Memory, used: int) -> Tensor:
        """Actions for the next timestep: ``(N,)`` int64, or ``(N, A)`` float32 in (-1, 1).

        Args:
            inputs: The timestep.
            memory: Of the rollouts; it takes in the timestep.
            used: See :meth:`Backbone.step`.
        """
        timesteps = self.actions.timesteps(
            inputs.observation, inputs.previous_action, inputs.previous_reward, inputs.steps
        )
        device = inputs.steps.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half_precision(device)):
            embedded = self.encoder(timesteps)
            state = self.backbone.step(embedded, inputs.steps, memory, used)
            policy = self.actor.last(state)
            self.judge(embedded, inputs.steps, state, policy)
        noise = inputs.noise
        if isinstance(policy, DiscretePolicy):
            cumulative = policy.probabilities.cumsum(dim=-1)
            below = noise * cumulative[:, -1:] > cumulative
            return below.sum(dim=1).clamp(max=cumulative.shape[1] - 1)
        return torch.tanh(policy.mean + policy.log_std.exp() * noise)

    def judge(self, embedded: Tensor, steps: Tensor, state: Tensor, policy: DiscretePolicy | GaussianPolicy) -> None:
        """What else is made of embedded timesteps and states, ``(N, D)`` each: nothing, in acting alone."""


class ValuingModel(ActingModel):
    """Also says which return it expects, for films of one environment.

    Args:
        model: The network; its critics are used as they are.
        multiplier: Of rewards, when it learned.

    Attributes:
        values: ``(N,)`` float32, of the latest step: the policy's average over the critics, for the last discount. With
            continuous actions, of the policy's mean action. Rewards count as they are paid.
    """

    compilable = False
    values: Tensor

    def __init__(self, model: AgentModel, multiplier: float) -> None:
        super().__init__(model)
        self._critics = [model]  # in a list, so that it is no part of this module
        self._multiplier = multiplier

    def judge(self, embedded: Tensor, steps: Tensor, state: Tensor, policy: DiscretePolicy | GaussianPolicy) -> None:
        """Their values."""
        if isinstance(policy, DiscretePolicy):
            values = (self._of_actions(state, None) * policy.probabilities).sum(dim=-1)
        else:
            values = self._of_actions(state, torch.tanh(policy.mean)[:, None, None])[:, 0]
        (model,) = self._critics
        if model.baseline is not None:
            values = values + model.baseline_values(model.baseline(embedded, steps))[:, -1]
        self.values = values / self._multiplier

    def _of_actions(self, state: Tensor, action: Tensor | None) -> Tensor:
        """Values ``(N, S)`` of actions ``(N, 1, S, A)``, or of all discrete ones."""
        (model,) = self._critics
        return model.raw_to_values(model.critic(state, action))[:, :, -1].mean(dim=0)


def _tensors(model: AgentModel | ActingModel) -> list[Tensor]:
    parts = (model.encoder, model.backbone, model.actor)
    return [tensor.detach() for part in parts for tensor in (*part.parameters(), *part.buffers())]


@lru_cache
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """Threads of a process in which PyTorch uses no further ones."""
    ready, limit = threading.Barrier(count + 1), torch.get_num_threads()

    def begin() -> None:
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(count, "acting", begin)
    for _ in range(count):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(limit)  # it was for all threads that had not used PyTorch before, too
    return pool


class NewestWeights:
    """Hands the newest weights from the thread that learns to the thread that acts.

    Args:
        model: The network.
    """

    def __init__(self, model: AgentModel) -> None:
        self._weights = ActingModel(model)
        self._lock = threading.Lock()
        self._put = self._taken = 0
        self._events: list[Any] = []  # on a GPU: what the other stream must wait for

    def put(self, model: AgentModel) -> None:
        """Copy the weights of a network to here."""
        with self._lock:
            self._in_order()
            self._weights.load(model)
            self._record(model)
            self._put += 1

    def copy_to(self, acting: ActingModel) -> None:
        """Copy the weights from here, if they are new."""
        if self._taken == self._put:
            return
        with self._lock:
            self._in_order()
            acting.load(self._weights)
            self._record(acting)
            self._taken = self._put

    def _in_order(self) -> None:
        for event in self._events:
            torch.cuda.current_stream().wait_event(event)
        self._events.clear()

    def _record(self, model: nn.Module) -> None:
        if next(model.parameters()).device.type == "cuda":
            self._events.append(torch.cuda.current_stream().record_event())


class Player:
    """Turns observations into actions, remembering each environment's rollout.

    Actions are an index, or a vector in (-1, 1); :meth:`to_environment` rescales vectors. All draws come from the
    generator given.

    Args:
        num_envs: N.
        action_space: Of one environment.
        rng: Draws the actions.
        device: The model's. On a GPU, the step is compiled and replayed as CUDA graphs.
    """

    def __init__(
        self, num_envs: int, action_space: gym.Space[Any], rng: np.random.Generator, device: torch.device
    ) -> None:
        spec = ActionSpec(action_space)
        self._range = (action_space.low, action_space.high) if isinstance(action_space, gym.spaces.Box) else None
        self._discrete, self._rng, self._device = spec.discrete, rng, device
        self._on_gpu = device.type == "cuda"
        shape, kind = ((num_envs,), np.int64) if spec.discrete else ((num_envs, spec.size), np.float32)
        self.previous_action: Array = np.zeros(shape, dtype=kind)
        self.previous_reward: Array = np.zeros(num_envs, dtype=np.float32)
        self._noise_shape = (num_envs, 1 if spec.discrete else spec.size)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._kept: Memory | None = None
        self._step: Callable[..., Tensor] | None = None
        self._staged: dict[str, tuple[Tensor, Tensor]] = {}  # by input: pinned memory of the host, and of the GPU

    def restart(self, mask: Array) -> None:
        """Forget the rollouts of the environments where `mask` ``(N,)`` is True: their next observation is a first."""
        self._steps[mask] = 0
        self.previous_action[mask] = 0
        self.previous_reward[mask] = 0

    def state(self) -> dict[str, Array]:
        """Memories and latest inputs, for a checkpoint."""
        state = {"action": self.previous_action.copy(), "reward": self.previous_reward.copy()}
        kept = {} if self._kept is None else self._kept.state(int(np.max(self._steps)))
        return {**state, "steps": self._steps.copy(), **kept}

    def load_state(self, state: dict[str, Array], model: ActingModel) -> None:
        """Restore what :meth:`state` returned."""
        self.previous_action[:], self.previous_reward[:] = state["action"], state["reward"]
        self._steps[:] = state["steps"]
        if "keys" in state:
            self._memory(model).load_state(state)

    def _memory(self, model: ActingModel) -> Memory:
        if self._kept is None:
            dtype = torch.bfloat16 if half_precision(self._device) else torch.float32
            self._kept = model.backbone.new_memory(len(self._steps), self._device, dtype)
        return self._kept

    def act(self, model: ActingModel, observations: Any) -> Array:
        """Sampled actions ``(N,)`` int64 or ``(N, A)`` float32 for the next observation of every environment."""
        memory = self._memory(model)
        if self._step is None:
            self._step = model.forward
            if self._on_gpu and model.compilable:
                self._step = replayed(one_graph(model.forward), self._device)
        draw = self._rng.random if self._discrete else self._rng.standard_normal
        used = int(np.max(self._steps)) + 1
        if self._on_gpu:
            used = -(-used // _SLOTS) * _SLOTS
        inputs = Inputs(
            observation=named_map(self._sent, "observation", tree_map(np.ascontiguousarray, observations)),
            previous_action=self._sent("previous_action", self.previous_action),
            previous_reward=self._sent("previous_reward", self.previous_reward),
            steps=self._sent("steps", self._steps),
            noise=self._sent("noise", draw(self._noise_shape).astype(np.float32)),
        )
        used = min(used, memory.window)
        actions = self._step(inputs, memory, used).cpu() if self._on_gpu else self._in_threads(inputs, memory, used)
        self._steps += 1
        return np.asarray(actions)

    def _in_threads(self, inputs: Inputs, memory: Memory, used: int) -> Tensor:
        """Of a CPU: as many threads as PyTorch may use share the environments, and not the work of each operation."""
        assert self._step is not None
        n = len(self._steps)
        count = min(torch.get_num_threads(), n // _WORTH_A_THREAD)
        if count < 2:
            return self._step(inputs, memory, used)
        rows = [slice(i * n // count, (i + 1) * n // count) for i in range(count)]
        parts = [(Inputs(*(tree_map(itemgetter(at), one) for one in inputs)), memory.part(at), used) for at in rows]
        return torch.cat(list(_threads(count, os.getpid()).map(self._step, *zip(*parts, strict=True))))

    def _sent(self, name: str, array: Array) -> Tensor:
        """On the model's device; on a CPU without a copy."""
        host = torch.from_numpy(array)
        if not self._on_gpu:
            return host
        if name not in self._staged:
            self._staged[name] = host.clone().pin_memory(), host.to(self._device)
        pinned, there = self._staged[name]
        pinned.copy_(host)
        there.copy_(pinned, non_blocking=True)
        return there

    def took(self, actions: Array) -> None:
        """Remember the actions that were really played."""
        self.previous_action[:] = actions

    def received(self, rewards: Array) -> None:
        """Remember the rewards that followed."""
        self.previous_reward[:] = rewards

    def to_environment(self, actions: Array) -> Array:
        """Vectors from (-1, 1) to the environment's own range; indices as they are."""
        if self._range is None:
            return actions
        low, high = self._range
        return np.asarray(low + (actions + 1) / 2 * (high - low), dtype=np.float32)
