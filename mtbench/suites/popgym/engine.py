"""Batched POPGym: every slot plays its own task."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtbench.errors import UsageError
from mtbench.suite import Suite, Task
from mtbench.suites.popgym import GAME_CHANNELS
from mtbench.suites.popgym.rules import (
    autoencode,
    cart_pole,
    count_recall,
    higher_lower,
    mine_sweeper,
    multiarmed_bandit,
    repeat_first,
    repeat_previous,
)
from mtbench.suites.popgym.rules.state import GAME, NOTHING, RULES
from mtbench.vector import streams
from mtbench.vector.compiled import compiled, kernel
from mtbench.vector.engine import Array, Engine
from mtbench.vector.streams import STREAM

(
    AUTOENCODE,
    REPEAT_FIRST,
    REPEAT_PREVIOUS,
    COUNT_RECALL,
    HIGHER_LOWER,
    BANDIT,
    MINE_SWEEPER,
    POSITION_POLE,
    VELOCITY_POLE,
) = range(9)

# By difficulty, what tells the tasks of a family apart.
_DECKS = {"Easy": 1, "Medium": 2, "Hard": 3}  # Autoencode, RepeatPrevious, HigherLower
_DECKS_TO_REPEAT = {"Easy": 1, "Medium": 8, "Hard": 16}
_CARDS_BACK = {"Easy": 4, "Medium": 32, "Hard": 64}
_DECKS_TO_COUNT = {"Easy": 1, "Medium": 2, "Hard": 4}
_FACES_TO_COUNT = {"Easy": 2, "Medium": 4, "Hard": 13}
_ARMS = {"Easy": 10, "Medium": 20}
_NOISE = {"Easy": 0.1, "Medium": 0.2, "Hard": 0.3}
_POLES = {
    "PositionOnlyCartPole": POSITION_POLE,
    "VelocityOnlyCartpole": VELOCITY_POLE,
    "NoisyPositionOnlyCartPole": POSITION_POLE,
}


def _deck(cards: int, asked: int, family: int, **more: float) -> dict[str, float]:
    """Rules of a card game in which each of the `asked` answers is worth 1 / `asked`."""
    return {"family": family, "cards": cards, "reward": 1 / asked, **more}


def _rules(task: Task) -> tuple[int, dict[str, float]]:
    """A task's number of actions, and its row of :data:`RULES`.

    Raises:
        ValueError: The task is of a family or a difficulty that has no rules here.
    """
    difficulty = task.name.removeprefix(task.family)
    try:
        return _rules_of(task.family, difficulty, task.max_steps)
    except KeyError:
        raise UsageError(
            f"The engine has no rules for {task.name!r} (family {task.family!r}, difficulty {difficulty!r}): add the "
            "family in the folder `rules`, or the difficulty at the head of engine.py."
        ) from None


def _rules_of(family: str, difficulty: str, max_steps: int) -> tuple[int, dict[str, float]]:
    if family == "Autoencode":
        cards = 52 * _DECKS[difficulty]
        return 4, _deck(cards, cards, AUTOENCODE)
    if family == "RepeatPrevious":
        cards, back = 52 * _DECKS[difficulty], _CARDS_BACK[difficulty]
        return 4, _deck(cards, cards - back, REPEAT_PREVIOUS, back=back)
    if family == "RepeatFirst":
        cards = 52 * _DECKS_TO_REPEAT[difficulty]
        return 4, _deck(cards, cards - 1, REPEAT_FIRST)
    if family == "CountRecall":
        cards, distinct = 52 * _DECKS_TO_COUNT[difficulty], _FACES_TO_COUNT[difficulty]
        return cards // distinct + 1, _deck(cards, cards - 1, COUNT_RECALL, distinct=distinct)
    if family == "HigherLower":
        cards = 52 * _DECKS[difficulty]
        return 2, _deck(cards, cards, HIGHER_LOWER)
    if family == "MineSweeper":
        return 16, {"family": MINE_SWEEPER, "reward": 1 / 14}
    if family == "MultiarmedBandit":
        return _ARMS[difficulty], {"family": BANDIT, "arms": _ARMS[difficulty], "reward": 1 / max_steps}
    noise = _NOISE[difficulty] if family.startswith("Noisy") else 0.0
    return 2, {"family": _POLES[family], "noise": noise, "reward": 1 / max_steps}


class POPGymEngine(Engine):
    """Plays the games of the ``popgym`` package: a variant gives the same attempt, with the same random draws."""

    def __init__(self, suite: Suite, num_envs: int, k: int) -> None:
        self._rules = np.zeros(len(suite.tasks), RULES)
        self.num_actions: Array = np.zeros(len(suite.tasks), dtype=np.int64)
        for i, task in enumerate(suite.tasks.values()):
            self.num_actions[i], row = _rules(task)
            self._rules[i]["max_steps"] = task.max_steps
            for name, value in row.items():
                self._rules[i][name] = value
        self._games = np.zeros(num_envs, GAME)
        self._streams = np.zeros(num_envs, STREAM)
        self._last_attempt = max(k - 1, 1)

    def start(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """Seed each slot's stream with the variant and let the family's rules begin."""
        _start(begin, end, self._games, self._rules, self._streams, tasks, variants)

    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """One step by the family's rules."""
        _step(begin, end, self._games, self._rules, self._streams, actions, reward, terminated, truncated)

    def observe(self, begin: int, end: int, progress: Array, out: Array) -> None:
        """Write rows of 30 float32 in the layout of :mod:`mtbench.suites.popgym`."""
        _observe(begin, end, self._games, progress, self._last_attempt, out)


@kernel
def _start(begin: int, end: int, games: Any, rules: Any, random: Any, tasks: Array, variants: Array) -> None:
    for i in range(begin, end):
        if variants[i] >= 0:
            game = games[i]
            game.task = tasks[i]
            game.steps = 0
            game.hot[0] = game.hot[1] = NOTHING
            game.seen[0] = game.seen[1] = 0.0
            streams.seed(random[i], variants[i])
            _start_one(game, rules[tasks[i]], random[i])


@kernel
def _step(
    begin: int,
    end: int,
    games: Any,
    rules: Any,
    random: Any,
    actions: Array,
    reward: Array,
    terminated: Array,
    truncated: Array,
) -> None:
    for i in range(begin, end):
        if actions[i] >= 0:
            game = games[i]
            outcome = _step_one(game, rules[game.task], random[i], actions[i])
            reward[i], terminated[i], truncated[i] = outcome


@kernel
def _observe(begin: int, end: int, games: Any, progress: Any, last_attempt: int, out: Array) -> None:
    for i in range(begin, end):
        game, so_far = games[i], progress[i]
        row = out[i]
        for channel in range(2, GAME_CHANNELS):
            row[channel] = 0.0
        row[0], row[1] = game.seen[0], game.seen[1]
        if game.hot[0] != NOTHING:
            row[game.hot[0]] = 1.0
        if game.hot[1] != NOTHING:
            row[game.hot[1]] = 1.0
        row[GAME_CHANNELS] = so_far.elapsed / 1000
        row[GAME_CHANNELS + 1] = so_far.attempt / last_attempt
        row[GAME_CHANNELS + 2] = 1.0 if so_far.valid else 0.0
        row[GAME_CHANNELS + 3] = so_far.reward


@compiled
def _start_one(game: Any, rules: Any, stream: Any) -> None:
    family = rules.family
    if family == AUTOENCODE:
        autoencode.start(game, rules, stream)
    elif family == REPEAT_FIRST:
        repeat_first.start(game, rules, stream)
    elif family == REPEAT_PREVIOUS:
        repeat_previous.start(game, rules, stream)
    elif family == COUNT_RECALL:
        count_recall.start(game, rules, stream)
    elif family == HIGHER_LOWER:
        higher_lower.start(game, rules, stream)
    elif family == BANDIT:
        multiarmed_bandit.start(game, rules, stream)
    elif family == MINE_SWEEPER:
        mine_sweeper.start(game, rules, stream)
    else:
        cart_pole.start(game, rules, stream)


@compiled
def _step_one(game: Any, rules: Any, stream: Any, action: int) -> tuple[float, bool, bool]:
    family = rules.family
    if family == AUTOENCODE:
        return autoencode.step(game, rules, action)
    if family == REPEAT_FIRST:
        return repeat_first.step(game, rules, action)
    if family == REPEAT_PREVIOUS:
        return repeat_previous.step(game, rules, action)
    if family == COUNT_RECALL:
        return count_recall.step(game, rules, action)
    if family == HIGHER_LOWER:
        return higher_lower.step(game, rules, action)
    if family == BANDIT:
        return multiarmed_bandit.step(game, rules, stream, action)
    if family == MINE_SWEEPER:
        return mine_sweeper.step(game, rules, action)
    return cart_pole.step(game, rules, stream, action, 1 if family == VELOCITY_POLE else 0)
