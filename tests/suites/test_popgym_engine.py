"""Every game of the engine compared with the popgym package's class, attempt by attempt."""

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("numba")

from mtbench.spaces import native_actions, observation_writer
from mtbench.suite import Task
from mtbench.suites.popgym import GAME_CHANNELS, SUITE, TASKS, POPGym
from mtbench.suites.popgym.engine import POPGymEngine
from mtbench.vector.engine import PROGRESS


class Games:
    """The engine with N attempts of one task."""

    def __init__(self, task, variants):
        self.n = len(variants)
        self.engine = POPGymEngine(SUITE, self.n, k=1)
        tasks = np.full(self.n, list(TASKS).index(task))
        self.engine.start(0, self.n, tasks, np.array(variants, dtype=np.int64))
        self.reward = np.zeros(self.n)
        self.terminated, self.truncated = np.zeros((2, self.n), dtype=bool)

    def observe(self):
        out = np.full((self.n, GAME_CHANNELS + 4), np.nan, dtype=np.float32)
        self.engine.observe(0, self.n, np.zeros(self.n, PROGRESS), out)
        return out[:, :GAME_CHANNELS]

    def step(self, actions):
        actions = np.asarray(actions, dtype=np.int64)
        self.engine.step(0, self.n, actions, self.reward, self.terminated, self.truncated)


def upstream(task):
    return SUITE.make_base(TASKS[task])


def row(write, observation):
    written = np.zeros(GAME_CHANNELS, dtype=np.float32)
    write(written, observation)
    return written


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_to_popgym_at_every_step(task, seed):
    """A variant seeds upstream's generator and the engine's stream: decks, mines, chances and noise are the same draws.

    Actions repeat for 1 to 3 steps, so that carts fall early or late, and mines are hit early or never.
    """
    rng = np.random.default_rng(seed)
    base = upstream(task)
    actions, write = native_actions(base.action_space), observation_writer(base.observation_space)
    exact = "art" not in task  # sines and cosines may differ from NumPy's in the last bit
    games = SUITE.tasks[task].max_steps
    for variant in [seed, *rng.integers(2**31, size=max(3, 2000 // games)).tolist()]:
        ours = Games(task, [variant])
        assert len(actions) == ours.engine.num_actions[list(TASKS).index(task)]
        observation, _ = base.reset(seed=int(variant))
        assert np.array_equal(ours.observe()[0], row(write, observation))
        over, steps, held = False, 0, int(rng.integers(1, 4))
        action = 0
        while not over:
            if steps % held == 0:
                action = int(rng.integers(len(actions)))
            observation, reward, terminated, truncated, _ = base.step(actions[action])
            ours.step([action])
            expected = row(write, observation)
            if exact:
                assert np.array_equal(ours.observe()[0], expected)
            else:
                np.testing.assert_allclose(ours.observe()[0], expected, rtol=0, atol=1e-6)
            assert ours.reward[0] == reward
            assert ours.terminated[0] == terminated
            assert ours.truncated[0] == truncated
            over = terminated or truncated
            steps += 1


@pytest.mark.parametrize("task", ["PositionOnlyCartPoleHard", "VelocityOnlyCartpoleMedium"])
def test_a_pole_that_is_balanced_stays_equal_for_hundreds_of_steps(task):
    base, ours = upstream(task), Games(task, [11])
    base.reset(seed=11)
    truncated = steps = 0
    while not truncated:
        x, x_dot, angle, angle_dot = base.state
        action = int(angle + 0.3 * angle_dot + 0.02 * x + 0.05 * x_dot > 0)
        observation, _, terminated, truncated, _ = base.step(action)
        ours.step([action])
        np.testing.assert_allclose(ours.observe()[0, :2], observation, rtol=0, atol=1e-6)
        assert not terminated
        steps += 1
    assert ours.truncated[0]
    assert steps == TASKS[task].max_steps


def test_the_right_answers_earn_what_they_should():
    """Closed forms: a flawless attempt at each of these is worth exactly 1."""
    ours = Games("RepeatFirstEasy", [4])
    first = int(ours.observe()[0].argmax())
    total = 0.0
    for _ in range(51):
        ours.step([first])
        total += ours.reward[0]
    assert ours.terminated[0]
    assert total == pytest.approx(1)
    ours, suits, total = Games("AutoencodeHard", [4]), [], 0.0
    while ours.observe()[0, 1] == 1:
        suits.append(int(ours.observe()[0, 2:6].argmax()))
        ours.step([0])
    suits.append(int(ours.observe()[0, 2:6].argmax()))
    for suit in reversed(suits):
        ours.step([suit])
        total += ours.reward[0]
    assert len(suits) == 156
    assert ours.terminated[0]
    assert total == pytest.approx(1)


def test_threads_share_a_batch_by_slots():
    """A step of some slots does not change the others."""
    whole, parts = Games("CountRecallHard", range(10)), Games("CountRecallHard", range(10))
    actions = np.arange(10)
    whole.step(actions)
    for begin, end in ((6, 10), (0, 6)):
        parts.engine.step(begin, end, actions, parts.reward, parts.terminated, parts.truncated)
    assert np.array_equal(whole.observe(), parts.observe())
    parts.step(np.full(10, -1))  # no slot plays
    assert np.array_equal(whole.observe(), parts.observe())


@pytest.mark.parametrize("task", ["HigherLowerEasy", "MultiarmedBanditEasy", "MineSweeperEasy", "CountRecallMedium"])
def test_free_draws_have_upstreams_distribution(task):
    """400 attempts each at other variants; results/vector has 10,000 for every task."""
    base, rng = upstream(task), np.random.default_rng(0)
    actions = native_actions(base.action_space)
    theirs = []
    for _ in range(400):
        base.reset(seed=int(rng.integers(2**31)))
        over, total, steps = False, 0.0, 0
        while not over:
            _, reward, terminated, truncated, _ = base.step(actions[rng.integers(len(actions))])
            total, steps, over = total + reward, steps + 1, terminated or truncated
        theirs.append((total, steps))
    ours, n = Games(task, range(400)), 400
    totals, lengths, playing = np.zeros(n), np.zeros(n), np.ones(n, dtype=bool)
    while playing.any():
        ours.step(np.where(playing, rng.integers(len(actions), size=n), -1))
        totals[playing] += ours.reward[playing]
        lengths[playing] += 1
        playing &= ~(ours.terminated | ours.truncated)
    for mine, yours in zip((totals, lengths), np.array(theirs).T, strict=True):
        assert stats.ks_2samp(mine, yours).pvalue > 1e-4


@pytest.mark.parametrize(
    ("name", "family"), [("ConcentrationEasy", "Concentration"), ("RepeatFirstTwo", "RepeatFirst")]
)
def test_a_task_without_rules_is_refused(name, family):
    """It must not be taken for another game."""

    class More(POPGym):
        tasks = {**TASKS, name: Task(name, f"popgym.envs:{name}", family, 51)}  # noqa: RUF012

    with pytest.raises(ValueError, match=f"no rules for '{name}'"):
        POPGymEngine(More(), 1, 1)
