"""BabyAI compared with minigrid, under random actions and under minigrid's bot."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("minigrid")
pytest.importorskip("numba")

from mtbench.rollout import MetaRollout
from mtbench.suites.babyai import MOST_WORDS, SUITE, TEST_TASKS, TRAIN_TASKS, WORDS, mission_numbers
from mtbench.suites.babyai.game import BabyAIGame
from mtbench.suites.babyai.layouts import NOTHING, TO_X, TO_Y, WALL, Layouts

# Probabilities of actions: those that change the world are more frequent than under uniform actions.
MOSTLY = [0.15, 0.15, 0.35, 0.15, 0.08, 0.1, 0.02]
# Tasks that minigrid's bot cannot play: it raises, or plans for ever.
BEYOND_THE_BOT = {f"BabyAI-{name}-v0" for name in ("KeyInBox", "UnlockToUnlock", "Unlock", "GoToImpUnlock")}


def assert_alike(seen, observation):
    image, direction, mission = seen
    assert np.array_equal(image, observation["image"])
    assert image.dtype == observation["image"].dtype
    assert (direction, mission) == (observation["direction"], observation["mission"])


def assert_same_step(ours, theirs, action):
    seen, *rest, _ = ours.step(action)
    observation, *their_rest, _ = theirs.step(action)
    assert_alike(seen, observation)
    assert rest == their_rest
    return rest[1] or rest[2]


def upstream(task):
    return gym.make(task, disable_env_checker=True).unwrapped


@pytest.mark.parametrize("task", SUITE.tasks)
def test_equal_to_upstream_under_random_actions(task):
    ours, theirs = BabyAIGame(task), upstream(task)
    rng = np.random.default_rng(0)
    for seed in range(20):
        assert_alike(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
        for action in rng.choice(7, p=MOSTLY, size=200).tolist():
            if assert_same_step(ours, theirs, action):
                break


@pytest.mark.parametrize("task", sorted({*TRAIN_TASKS, *TEST_TASKS} - BEYOND_THE_BOT))
def test_equal_to_upstream_on_its_bots_way_to_success(task):
    from minigrid.utils.baby_ai_bot import BabyAIBot

    ours, theirs = BabyAIGame(task), upstream(task)
    for seed in range(5):
        ours.reset(seed=seed)
        theirs.reset(seed=seed)
        bot, action, over = BabyAIBot(theirs), None, False
        while not over:
            action = int(bot.replan(action))
            over = assert_same_step(ours, theirs, action)


def test_the_second_attempt_begins_like_the_first():
    env = MetaRollout(SUITE, k=2, tasks=["BabyAI-UnlockPickup-v0"])
    obs, _ = env.reset(seed=3)
    rng, steps = np.random.default_rng(0), 0
    while env.playing:
        _, _, over, _, _ = env.step(int(rng.choice(7, p=MOSTLY)))
        steps += 1
    assert not over
    again, *_ = env.step(0)
    assert again["attempt"] == [0.5]
    assert all(np.array_equal(obs[name], again[name]) for name in ("image", "direction", "mission"))


def test_drawing_other_layouts_before_changes_none():
    used, fresh = Layouts("BabyAI-GoToImpUnlock-v0"), Layouts("BabyAI-GoToImpUnlock-v0")
    for seed in range(5):
        used.draw(seed)
    for seed in (2, 3):
        world, mission = used.draw(seed)
        assert (world, mission) == fresh.draw(seed)


def test_a_layout_without_a_place_for_the_agent_is_drawn_again():
    """Upstream never ends with this seed: in a room full of objects, the agent would look at one from everywhere."""
    task = "BabyAI-SynthS5R2-v0"
    drawn = [Layouts(task).draw(seed) for seed in (1741, 1741, 3586)]
    assert drawn[0][0].tobytes() == drawn[1][0].tobytes() != drawn[2][0].tobytes()
    world = drawn[0][0]
    ahead = world["cells"][world["x"] + TO_X[world["facing"]], world["y"] + TO_Y[world["facing"]]]
    assert ahead in (NOTHING, WALL)


def test_missions_are_read_word_by_word():
    assert mission_numbers("open the red door, then open the blue door").tolist() == [
        WORDS.index(word) + 2 for word in ["open", "the", "red", "door,", "then", "open", "the", "blue", "door"]
    ]
    assert mission_numbers("put a key").tolist() == [1, 2, WORDS.index("key") + 2, *[0] * 6]


@pytest.mark.parametrize("task", ["BabyAI-OpenRedBlueDoors-v0", "BabyAI-PickupLoc-v0", "BabyAI-OpenDoorLoc-v0"])
def test_all_words_of_the_68_tasks_are_known(task):
    layouts = Layouts(task)
    for seed in range(40):
        words = layouts.draw(seed)[1].split()
        assert len(words) <= MOST_WORDS
        assert set(words) <= set(WORDS)


def test_splits_share_no_task_and_no_layout_but_for_the_marked_one():
    assert (len(TRAIN_TASKS), len(TEST_TASKS)) == (50, 18)
    assert not set(TRAIN_TASKS) & set(TEST_TASKS)
    splits = SUITE.splits["train"], SUITE.splits["test"]
    ranges = [part for split in splits for part in (split.variants, split.evaluation)]
    for i, one in enumerate(ranges):
        for other in ranges[i + 1 :]:
            assert one.stop <= other.start or other.stop <= one.start
    for held_out, trained in SUITE.repeats.items():
        assert held_out in TEST_TASKS
        assert trained in TRAIN_TASKS
        assert Layouts(held_out).draw(5) == Layouts(trained).draw(5)


def test_a_task_with_long_missions_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="missions have up to 24 words, and observations have room for 9"):
        MetaRollout(SUITE, tasks=["BabyAI-GoToSeq-v0"])


def test_upstream_says_nothing(capfd):
    layouts = Layouts("BabyAI-GoToObjMazeS4R2-v0")
    for seed in range(60):
        layouts.draw(seed)
    assert capfd.readouterr().out == ""


def test_success_is_a_paid_step():
    env = MetaRollout(SUITE, tasks=["BabyAI-GoToObjS4-v0"], split="test", k=2)
    rng, both = np.random.default_rng(0), set()
    for seed in range(20):
        env.reset(seed=seed)
        over = False
        while not over:
            _, _, over, _, info = env.step(int(rng.integers(7)))
        rollout = info["rollout"]
        assert rollout["successes"].tolist() == (rollout["returns"] > 0).tolist()
        both |= set(rollout["successes"].tolist())
    assert both == {True, False}


def test_pictures_are_of_the_current_state():
    base = BabyAIGame("BabyAI-GoToRedBall-v0")
    base.reset(seed=0)
    before = base.picture()
    for action in (0, 2, 2, 1):
        seen = base.step(action)[0]
        assert_alike(seen, base.twin().gen_obs())
    assert not np.array_equal(before, base.picture())
    base.reset(seed=0)
    assert np.array_equal(before, base.picture())
