"""What the meta-rollout layer adds to a step of the bare popgym game: at most 5 microseconds.

``make bench`` prints the table. Both sides play the same variants and actions in one process. Steps and resets are
timed apart; the last column spreads the resets over the steps, as random play does.
"""

import time

import gymnasium as gym
import numpy as np
import pytest

import mtbench  # noqa: F401
from mtbench.suites.popgym import SUITE, TASKS

EASY = [task for task in TASKS if task.endswith("Easy")]
STEPS = 2_000
ROUNDS = 15

ROWS = {}


class Side:
    """One of the two: plays all actions, adding up the time of its steps and of its resets."""

    def __init__(self, reset, step, actions):
        self.reset, self.step, self.actions = reset, step, actions
        self.rounds = []  # (seconds in steps, seconds in resets, resets) of every round

    def play(self):
        clock = time.perf_counter
        stepping = resetting = 0.0
        resets, over = 0, True
        for action in self.actions:
            if over:
                began = clock()
                self.reset(resets)
                resetting += clock() - began
                resets += 1
            began = clock()
            _, _, terminated, truncated, _ = self.step(action)
            stepping += clock() - began
            over = terminated or truncated
        self.rounds.append((stepping, resetting, resets))

    def microseconds(self):
        """Per step without resets, per reset, per step with them: each the best of all rounds."""
        steps, resets, counts = (np.array(column) for column in zip(*self.rounds, strict=True))
        times = steps / STEPS, resets / counts, (steps + resets) / STEPS
        return [1e6 * float(column.min()) for column in times]


def sides(task):
    """The bare game and ours, about to play the same variants and actions."""
    env = gym.make("MTPOPGym-v0", tasks=[task], k=1, objective="k-episode")
    game = SUITE.make_base(TASKS[task])
    env.reset(seed=0)
    actions = list(env.unwrapped._actions)
    indices = [int(i) for i in np.random.default_rng(0).integers(len(actions), size=STEPS)]
    variants = []

    def reset_ours(count):
        env.reset(seed=0) if count == 0 else env.reset()
        if count == len(variants):
            variants.append(env.unwrapped.variant)

    ours = Side(reset_ours, env.step, indices)
    ours.play()  # learns the variants
    bare = Side(lambda count: game.reset(seed=variants[count]), game.step, [actions[i] for i in indices])
    return bare, ours


@pytest.mark.parametrize("task", EASY)
def test_added_time_per_step(benchmark, task):
    bare, ours = sides(task)
    # The bare game plays right before each round of ours, so both meet the same noise.
    benchmark.pedantic(ours.play, setup=bare.play, rounds=ROUNDS, warmup_rounds=1)
    assert [row[2] for row in bare.rounds] == [row[2] for row in ours.rounds[1:]], "both played the same"
    rows = list(zip(bare.microseconds(), ours.microseconds(), strict=True))
    benchmark.extra_info["added_us_per_step"] = rows[0][1] - rows[0][0]
    ROWS[task] = rows


def test_print_the_table(capsys):
    if not ROWS:
        pytest.skip("nothing was timed")
    with capsys.disabled():
        print(f"\nmicroseconds{'':20} {'popgym step':>12} {'ours':>7} {'added':>7} {'a reset':>8} {'with resets':>12}")
        for task, (step, reset, both) in ROWS.items():
            added = [ours - bare for bare, ours in (step, reset, both)]
            print(f"{task:32} {step[0]:12.2f} {step[1]:7.2f} {added[0]:7.2f} {added[1]:8.2f} {added[2]:12.2f}")
        worst = [max(row[i][1] - row[i][0] for row in ROWS.values()) for i in range(3)]
        print(f"{'worst':32} {'':12} {'':7} {worst[0]:7.2f} {worst[1]:8.2f} {worst[2]:12.2f}")
