"""The policy's side of an isolated evaluation (:mod:`mtbench.isolation`): it runs in a process that is locked in.

It is sent pickled messages, which come from the evaluation. It answers with bytes that are never unpickled.
"""

from __future__ import annotations

import json
import traceback
from typing import IO, Any

import gymnasium as gym
import numpy as np

from mtbench.isolation import ACTIONS, ERROR, FACTS, write_reply
from mtbench.policy import Policy, PrivilegedPolicy, RewardedPolicy, TrainedPolicy, fingerprint, load_policy
from mtbench.spaces import action_index, box_action
from mtbench.vector.helpers import read_message
from mtbench.worker import pipes


def main() -> None:
    """Answer until the pipe is closed."""
    requests, replies = pipes()
    try:
        name = read_message(requests)
        policy = _loaded(name, replies)
        while policy is not None:
            _answer(policy, read_message(requests), replies)
    except (EOFError, BrokenPipeError):
        return


def _loaded(name: str, replies: IO[bytes]) -> _Playing | None:
    try:
        policy = load_policy(name)
        if isinstance(policy, PrivilegedPolicy):
            raise ValueError("it reads hidden state, which an isolated policy cannot")
        facts: dict[str, Any] = {"identity": fingerprint(name, policy), "rewarded": isinstance(policy, RewardedPolicy)}
        if isinstance(policy, TrainedPolicy):
            facts["trained"] = {"agent": policy.agent, "train_seed": policy.train_seed, "step": policy.step}
    except BaseException as error:
        write_reply(replies, ERROR, f"{type(error).__name__}: {error}".encode())
        return None
    write_reply(replies, FACTS, json.dumps(facts).encode())
    return _Playing(policy)


class _Playing:
    """A policy and the spaces that it was started with."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.rewarded = policy if isinstance(policy, RewardedPolicy) else None

    def start(self, num_envs: int, seed: int, observations: gym.Space[Any], actions: gym.Space[Any]) -> bytes:
        """Begin anew."""
        self._n, self._actions = num_envs, actions
        self.policy.start(num_envs, seed, observations, actions)
        return b""

    def act(self, observations: Any, reset_mask: Any, rewards: Any) -> bytes:
        """The actions as bytes."""
        if rewards is not None and self.rewarded is not None:
            self.rewarded.observe_rewards(rewards)
        actions = self.policy.act(observations, reset_mask)
        if len(actions) != self._n:
            raise ValueError(f"act returned {len(actions)} actions for {self._n} observations")
        space = self._actions
        if isinstance(space, gym.spaces.Discrete):
            return np.array([action_index(each, int(space.n)) for each in actions], dtype=np.int64).tobytes()
        return np.stack([box_action(each, space) for each in actions]).tobytes()


def _answer(playing: _Playing, request: tuple[Any, ...], replies: IO[bytes]) -> None:
    try:
        what, *arguments = request
        content = getattr(playing, what)(*arguments)
    except BaseException as error:
        text = f"{type(error).__name__}: {error}\n\n{''.join(traceback.format_exception(error))}"
        write_reply(replies, ERROR, text.encode(errors="replace"))
        return
    write_reply(replies, ACTIONS, content)


if __name__ == "__main__":
    main()
