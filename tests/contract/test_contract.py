"""DESIGN section 3, point by point, for every registered ID."""

import itertools
import multiprocessing
import pickle
import random
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mtbench.registration import TABLE
from mtbench.suite import load_suite

from .helpers import attempts, equal, play, same_trace

SEEDS = range(6)


def arguments(env_id):
    return next(row.kwargs for row in TABLE if row.id == env_id)


def tasks_of(env_id, split="train"):
    return list(load_suite(arguments(env_id)["suite"]).split(split).tasks)


# ---- the checkers ----


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_gymnasium_checker_is_content(env_id, split, render_mode):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(gym.make(env_id, split=split, render_mode=render_mode).unwrapped)
    unexpected = [str(w.message) for w in caught if "is -infinity" not in str(w.message)]
    unexpected = [message for message in unexpected if "is infinity" not in message]
    assert not unexpected


def test_stable_baselines_checker_is_content(env_id, split):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gym.make(env_id, split=split))


# ---- 1: reset seeds everything ----


def test_same_seed_and_actions_give_the_same_rollouts(make):
    one, two = make(), make()
    for seed in SEEDS:
        assert same_trace(play(one, seed), play(two, seed))


def test_seeds_differ(make):
    env = make()
    starts = [play(env, seed, max_steps=20) for seed in range(20)]
    assert sum(same_trace(starts[0], other) for other in starts[1:]) == 0


def test_unseeded_reset_after_a_seeded_one_is_determined(make):
    one, two = make(), make()
    for env in (one, two):
        env.reset(seed=5)
    for _ in range(3):
        assert same_trace(play(one, None), play(two, None))


def test_unseeded_resets_differ(make):
    env = make()
    env.reset(seed=5)
    variants = []
    for _ in range(20):
        env.reset()
        variants.append((env.unwrapped.task, env.unwrapped.variant))
    assert len(set(variants)) == 20


_FINGERPRINT = """
import hashlib, gymnasium as gym, numpy as np
env = gym.make("mtbench:{env_id}")
env.action_space.seed(0)
digest = hashlib.sha256()
for seed in range(4):
    obs, info = env.reset(seed=seed)
    over = False
    while not over:
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        parts = obs.values() if isinstance(obs, dict) else [obs]
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(repr((reward, terminated, truncated)).encode())
        over = terminated or truncated
print(digest.hexdigest())
"""


def test_another_process_gives_the_same_rollouts(env_id):
    code = _FINGERPRINT.format(env_id=env_id)
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": salt}
        )
        for salt in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64


def test_global_generators_are_neither_used_nor_disturbed(make, env_id):
    first = [play(make(), seed) for seed in SEEDS]
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    second = [play(make(), seed) for seed in SEEDS]
    after = random.getstate(), np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert all(same_trace(a, b) for a, b in zip(first, second, strict=True))


# ---- 2: tasks and variants ----


def test_tasks_are_drawn_uniformly(make, env_id, split):
    env = make(split=split).unwrapped
    env.reset(seed=0)
    names = tasks_of(env_id, split)
    draws = 60 * len(names)
    counts = dict.fromkeys(names, 0)
    for _ in range(draws):
        env.reset()
        counts[env.task] += 1
        assert env.variant in env.split.variants
    expected = draws / len(names)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    # Mean n - 1 and variance 2 (n - 1): six standard deviations.
    assert chi_square < len(names) - 1 + 6 * (2 * (len(names) - 1)) ** 0.5


def test_task_and_variant_can_be_pinned(make, env_id):
    env = make().unwrapped
    for task in tasks_of(env_id):
        options = {"task": task, "variant": env.split.variants.start + 3}
        assert same_trace(play(env, 1, options=options), play(env, 1, options=options))
        env.reset(seed=2, options=options)
        assert (env.task, env.variant) == (task, options["variant"])


def test_a_pinned_variant_fixes_every_attempt_whatever_the_seed(make, env_id):
    env = make().unwrapped
    for drawn_from in (env.split.variants, env.split.evaluation):
        seen = []
        for seed in (1, 2):
            env.reset(seed=seed, options={"task": tasks_of(env_id)[0], "variant": drawn_from.start + 7})
            seen.append(list(env._variants))
        assert seen[0] == seen[1]
        assert all(v in drawn_from for v in seen[0])


def test_pinned_rollouts_play_alike_from_any_seed(make, env_id):
    """The index 0 exists in every task, so nothing is replaced and nothing but the variant matters."""
    options = {"task": tasks_of(env_id)[0], "variant": 7}
    traces = []
    for seed in (1, 2):
        env = make()
        trace = [env.reset(seed=seed, options=options)[0]]
        over = False
        while not over:
            obs, _, terminated, truncated, _ = env.step(np.zeros_like(env.action_space.sample()))
            over = terminated or truncated
            trace.append(obs)
        traces.append(trace)
    assert all(equal(a, b) for a, b in zip(*traces, strict=True))


def test_a_variant_can_be_pinned_for_each_attempt(make, env_id):
    env = make().unwrapped
    start = env.split.evaluation.start
    same = env.suite.attempt_variants == "same"
    variants = [start if same else start + i for i in range(env.k)]
    env.reset(seed=0, options={"variant": variants})
    assert env._variants == variants


def test_pinning_does_not_shift_later_draws(make, env_id):
    one, two = make().unwrapped, make().unwrapped
    one.reset(seed=3)
    two.reset(seed=3, options={"task": tasks_of(env_id)[0], "variant": one.split.variants.start})
    one.reset()
    two.reset()
    assert (one.task, one.variant) == (two.task, two.variant)


def test_variants_of_training_and_evaluation_are_disjoint(env_id):
    suite = load_suite(arguments(env_id)["suite"])
    train, test = suite.splits["train"], suite.splits["test"]
    for other in (train.evaluation, test.variants, test.evaluation):
        assert train.variants.stop <= other.start or other.stop <= train.variants.start


# ---- 3 to 5: attempts and the end ----


def test_between_attempts_one_step_ignores_its_action(make):
    env = make()
    for seed in SEEDS:
        trace = play(env, seed)
        for i, part in enumerate(attempts(trace, env)):
            first = part[0]
            assert first[1] == 0.0
            if i:
                # The same rollout with another action at the boundary goes on alike.
                at = sum(len(p) for p in attempts(trace, env)[:i])
                env.action_space.seed(0)
                env.reset(seed=seed)
                for step in range(1, len(trace)):
                    action = env.action_space.sample()
                    if step == at:
                        action = np.zeros_like(action) if isinstance(action, np.ndarray) else 0
                    again = env.step(action)
                    assert equal(again[0], trace[step][0])


def test_only_the_last_step_ends_the_rollout(make, env_id):
    env = make()
    for seed in SEEDS:
        trace = play(env, seed)
        assert not any(terminated or truncated for _, _, terminated, truncated, _ in trace[:-1])
        assert trace[-1][2] is True
        assert trace[-1][3] is False
        rollout = trace[-1][4]["rollout"]
        assert len(trace) == 1 + rollout["lengths"].sum() + arguments(env_id)["k"] - 1


def test_flags_and_rewards_are_python_scalars(make):
    for seed in SEEDS:
        for _, reward, terminated, truncated, _ in play(make(), seed):
            assert type(reward) is float
            assert type(terminated) is bool
            assert type(truncated) is bool


def test_same_step_reset_folds_the_boundary(make, env_id):
    for seed in SEEDS:
        apart = play(make(), seed)
        options = {"task": None, "variant": None}
        env = make(attempt_reset="same-step")
        env.reset(seed=seed, options=options)
        # Replay the actions of `apart` without the ignored ones.
        sampler = make().action_space
        sampler.seed(0)
        actions = [sampler.sample() for _ in range(len(apart) - 1)]
        boundaries = np.cumsum([len(part) for part in attempts(apart, env)])[:-1]
        folded = [env.step(action) for i, action in enumerate(actions, start=1) if i not in boundaries]
        assert len(folded) == len(apart) - 1 - len(boundaries)
        ends = [step for step in folded if "final_attempt_obs" in step[4]]
        assert len(ends) == arguments(env_id)["k"] - 1
        kept = [step for i, step in enumerate(apart[1:], start=1) if i not in boundaries]
        for ours, theirs in zip(folded, kept, strict=True):
            assert ours[1:4] == theirs[1:4]
        assert equal(folded[-1][4]["rollout"], apart[-1][4]["rollout"])
        for end in ends:
            assert env.observation_space.contains(end[4]["final_attempt_obs"])


@pytest.mark.parametrize("k", [1, 3])
def test_any_k(make, k):
    env = make(k=k)
    check_env(env.unwrapped, skip_render_check=True)
    rollout = play(env, 0)[-1][4]["rollout"]
    assert len(rollout["returns"]) == len(rollout["lengths"]) == k


def test_a_time_limit_truncates(make):
    env = make(max_steps=5)
    for seed in SEEDS:
        trace = play(env, seed)
        assert len(trace) <= 6
        if len(trace) == 6:
            assert trace[-1][2:4] == (False, True) or trace[-1][2:4] == (True, False)
            assert len(trace[-1][4]["rollout"]["returns"]) == env.unwrapped.k


# ---- 6, 8, 9: rewards and statistics ----


@pytest.mark.parametrize("objective", ["k-shot", "k-episode"])
def test_what_is_paid(make, objective):
    env = make(objective=objective, k=2)
    for seed in SEEDS:
        trace = play(env, seed)
        parts = attempts(trace, env)
        paid = [sum(step[1] for step in part[1:]) for part in parts]
        returns = trace[-1][4]["rollout"]["returns"]
        if objective == "k-shot":
            assert all(step[1] == 0.0 for part in parts[:-1] for step in part)
            assert paid[-1] == pytest.approx(returns[-1])
        else:
            assert paid == pytest.approx(returns)


def test_exploration_earns_a_return_that_is_not_paid(make, env_id):
    env = make(objective="k-shot", k=2)
    assert any(abs(play(env, seed)[-1][4]["rollout"]["returns"][0]) > 0 for seed in SEEDS)


def test_statistics_have_fixed_dtypes_and_no_label(make):
    env = make()
    rollout = play(env, 0)[-1][4]["rollout"]
    assert set(rollout) == {"returns", "lengths"} | ({"successes"} if env.unwrapped.suite.has_success else set())
    assert rollout["returns"].dtype == np.float64
    assert rollout["lengths"].dtype == np.int64
    assert (rollout["lengths"] > 0).all()


def test_reward_scales_change_what_is_paid_and_nothing_else(make, env_id):
    task = tasks_of(env_id)[0]
    plain, scaled = make(), make(reward_scales={task: 100.0})
    for name in tasks_of(env_id)[:3]:
        one, two = play(plain, 4, options={"task": name}), play(scaled, 4, options={"task": name})
        factor = 100.0 if name == task else 1.0
        for a, b in zip(one, two, strict=True):
            assert b[1] == pytest.approx(factor * a[1])
            assert equal(a[0], b[0])
        assert equal(one[-1][4], two[-1][4])


# ---- 7: label hiding ----


def structure(value):
    """What an observation or info looks like, apart from its numbers."""
    if isinstance(value, dict):
        return {key: structure(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str
    return type(value).__name__


def test_nothing_but_the_base_observation_separates_tasks(make, env_id):
    """Every step of every task has the same keys, shapes and dtypes, and no info but the closing statistics."""
    observations, infos = set(), set()
    for task in tasks_of(env_id):
        for obs, _, terminated, _, info in play(make(), 0, options={"task": task}):
            observations.add(repr(structure(obs)))
            infos.add((terminated, repr(structure(info))))
    assert len(observations) == 1
    assert {info for over, info in infos if not over} == {"{}"}
    assert len({info for over, info in infos if over}) == 1


def test_info_is_empty_but_for_statistics(make):
    for seed in SEEDS:
        trace = play(make(), seed)
        assert all(step[4] == {} for step in trace[:-1])
        assert set(trace[-1][4]) == {"rollout"}


def test_spaces_do_not_depend_on_the_tasks_played(make, env_id):
    full = make()
    for task in tasks_of(env_id):
        one = make(tasks=[task])
        assert one.observation_space == full.observation_space
        assert one.action_space == full.action_space


def test_the_label_can_be_exposed(make, env_id):
    env = make(expose_task_label=True)
    check_env(env.unwrapped, skip_render_check=True)
    names = list(env.unwrapped.suite.tasks)
    for task in tasks_of(env_id)[:5]:
        for obs, _, _, _, info in play(env, 0, options={"task": task}):
            assert info["task"] == task
            assert info["task_index"] == names.index(task)
            label = obs["task"] if isinstance(obs, dict) else obs[-len(names) :]
            assert label.sum() == 1
            assert label[names.index(task)] == 1


# ---- 10, 11: spaces and rendering ----


def test_every_observation_is_in_the_space_and_its_own(make, env_id):
    env = make()
    for seed in SEEDS:
        seen = [obs for obs, *_ in play(env, seed)]
        assert all(env.observation_space.contains(obs) for obs in seen)
        arrays = [part for obs in seen for part in (obs.values() if isinstance(obs, dict) else [obs])]
        assert len({id(array) for array in arrays}) == len(arrays)
        assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(arrays))


def test_frames_have_one_size_and_are_not_shared(make, env_id):
    env = make(render_mode="rgb_array")
    frames = []
    for task in tasks_of(env_id):
        env.reset(seed=0, options={"task": task})
        frames.append(env.render())
        env.step(env.action_space.sample())
        frames.append(env.render())
    assert {frame.shape for frame in frames} == {env.unwrapped.suite.frame_shape}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(frames))
    assert all(frame.std() > 5 for frame in frames), "something is drawn"


def test_rendering_changes_nothing(make):
    drawn, plain = make(render_mode="rgb_array"), make()
    drawn.action_space.seed(0)
    expected = play(plain, 3)
    drawn.reset(seed=3)
    for step in expected[1:]:
        drawn.render()
        assert equal(drawn.step(drawn.action_space.sample())[0], step[0])


# ---- 12: errors ----


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"split": "tset"}, ValueError, "Did you mean 'test'"),
        ({"tasks": ["no-such-task-at-all"]}, ValueError, "There is no task 'no-such-task-at-all' in split 'train'"),
        ({"tasks": []}, ValueError, "at least one task"),
        ({"tasks": "abc"}, ValueError, r"tasks=\['abc'\]"),
        ({"tasks": 5}, ValueError, "list of names"),
        ({"expose_task_label": "False"}, ValueError, "true or false"),
        ({"reward_scales": 3}, ValueError, "factors by task"),
        ({"k": 0}, ValueError, "`k` must be an integer of at least 1"),
        ({"k": 1.5}, ValueError, "`k` must be an integer of at least 1"),
        ({"max_steps": 0}, ValueError, "`max_steps`"),
        ({"objective": "kshot"}, ValueError, "Did you mean 'k-shot'"),
        ({"attempt_reset": "never"}, ValueError, "next-step"),
        ({"reward_scales": {"nothing": 2.0}}, ValueError, "There is no task 'nothing'"),
        ({"spilt": "test"}, TypeError, "Did you mean 'split'"),
        ({"suite": "popgim"}, ValueError, "popgym"),
    ],
)
def test_a_wrong_argument_is_refused(env_id, kwargs, error, message):
    with pytest.raises(error, match=message):
        gym.make(env_id, **kwargs)


def test_a_misspelt_task_is_answered_with_the_nearest(make, env_id):
    name = tasks_of(env_id)[0]
    with pytest.raises(ValueError, match=f"Did you mean '{name}'"):
        make(tasks=[name[:-1]])
    with pytest.raises(ValueError, match=f"Did you mean '{name}'.*"):
        make().reset(options={"task": name.lower()})


def test_a_non_finite_reward_scale_is_refused(make, env_id):
    with pytest.raises(ValueError, match="finite"):
        make(reward_scales={tasks_of(env_id)[0]: float("nan")})


@pytest.mark.parametrize("variant", [-1, 2**40, "3", 1.5, [0], None])
def test_a_wrong_variant_is_refused(make, variant):
    env = make(k=2)
    if variant is None:
        variant = env.unwrapped.suite.splits["test"].variants.start
    with pytest.raises(ValueError, match=r"not in split 'train'|Pin one variant"):
        env.reset(options={"variant": variant})


def test_an_unknown_option_is_refused(make):
    with pytest.raises(ValueError, match="Did you mean 'task'"):
        make().reset(options={"tsak": "x"})


def test_a_refused_reset_leaves_the_rollout_alone(make):
    env, undisturbed = make(), make()
    for each in (env, undisturbed):
        each.reset(seed=0)
    with pytest.raises(ValueError, match="no task"):
        env.reset(seed=5, options={"task": "nothing"})
    for _ in range(20):
        action = env.action_space.sample()
        assert equal(env.step(action)[0], undisturbed.step(action)[0])


def test_step_needs_a_reset(make):
    env = make()
    with pytest.raises(gym.error.ResetNeeded, match="Call reset"):
        env.step(env.action_space.sample())
    play(env, 0)
    with pytest.raises(gym.error.ResetNeeded, match="over"):
        env.step(env.action_space.sample())


def test_an_action_outside_the_space_is_refused(make):
    env = make()
    env.reset(seed=0)
    n = env.action_space.n if isinstance(env.action_space, gym.spaces.Discrete) else None
    for action in [n, -1, 0.5, "left", None, [0, 1]] if n else [None, np.full(env.action_space.shape, 9.0)]:
        with pytest.raises(gym.error.InvalidAction):
            env.step(action)
    env.step(env.action_space.sample())


def test_a_missing_package_is_named_with_its_extra(env_id, monkeypatch):
    suite = load_suite(arguments(env_id)["suite"])
    package = next(iter(suite.tasks.values())).base.split(":")[0].split(".")[0]
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=rf"pip install 'mtbench\[{suite.name}\]'"):
        gym.make(env_id)


# ---- with the rest of Gymnasium ----


def test_the_spec_is_json_safe_and_makes_the_same_environment(make, env_id):
    copy = gym.make(gym.envs.registration.EnvSpec.from_json(gym.spec(env_id).to_json()))
    assert same_trace(play(copy, 0), play(make(), 0))
    assert type(gym.make(env_id)).__name__ == "MetaRollout", "no wrapper of Gymnasium's slows it down"


def test_pickles_in_the_middle_of_a_rollout(make):
    env = make().unwrapped
    env.reset(seed=1)
    for _ in range(3):
        env.step(env.action_space.sample())
    copy = pickle.loads(pickle.dumps(env))
    for _ in range(3):
        action = env.action_space.sample()
        assert equal(env.step(action)[0], copy.step(action)[0])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_environments_equal_single_ones(env_id, make, mode):
    seeds = [11, 12, 13]
    venv = gym.make_vec(env_id, num_envs=3, vectorization_mode=mode)
    singles = [make() for _ in seeds]
    batch, _ = venv.reset(seed=seeds)
    rows = [env.reset(seed=seed)[0] for env, seed in zip(singles, seeds, strict=True)]
    venv.action_space.seed(0)
    over = [False] * 3
    for _ in range(300):
        for i, row in enumerate(rows):
            assert equal(batch[i], row) if isinstance(batch, np.ndarray) else True
        actions = venv.action_space.sample()
        batch, rewards, terminated, truncated, _ = venv.step(actions)
        for i, env in enumerate(singles):
            if over[i]:  # Gymnasium's own next-step autoreset
                rows[i], over[i] = env.reset()[0], False
            else:
                rows[i], reward, *flags, _ = env.step(actions[i])
                assert rewards[i] == reward
                assert [terminated[i], truncated[i]] == flags
                over[i] = any(flags)
    venv.close()


def test_vector_statistics_arrive(env_id):
    venv = gym.make_vec(env_id, num_envs=2, vectorization_mode="sync", max_steps=30)
    venv.reset(seed=0)
    ended = 0
    for _ in range(40):
        *_, info = venv.step(venv.action_space.sample())
        if "rollout" in info:
            ended += int(info["_rollout"].sum())
            assert info["rollout"]["returns"].shape == (2, arguments(env_id)["k"])
    assert ended >= 2
    venv.close()


def _in_a_spawned_process(env_id, queue):
    import gymnasium

    env = gymnasium.make(f"mtbench:{env_id}")
    queue.put(env.reset(seed=3)[0])


def test_works_in_a_spawned_process(env_id, make):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_in_a_spawned_process, args=(env_id, queue))
    process.start()
    there = queue.get(timeout=120)
    process.join(timeout=60)
    assert equal(there, make().reset(seed=3)[0])


def test_record_episode_statistics(make):
    env = gym.wrappers.RecordEpisodeStatistics(make())
    trace = play(env, 0)
    assert trace[-1][4]["episode"]["r"] == pytest.approx(sum(step[1] for step in trace))
    assert trace[-1][4]["episode"]["l"] == len(trace) - 1
    assert "rollout" in trace[-1][4]


def test_record_video_writes_one_file_per_rollout(env_id, tmp_path):
    pytest.importorskip("moviepy")
    env = gym.make(env_id, render_mode="rgb_array", max_steps=15)
    env = gym.wrappers.RecordVideo(env, str(tmp_path), episode_trigger=lambda _: True, disable_logger=True)
    for seed in range(2):
        play(env, seed)
    env.close()
    videos = sorted(tmp_path.glob("*.mp4"))
    assert len(videos) == 2
    assert all(video.stat().st_size > 1000 for video in videos)
