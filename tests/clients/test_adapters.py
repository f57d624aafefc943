"""Models of other libraries, played by the adapters as their own libraries play them."""

import pickle
import random

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from mtbench.adapters import SB3Policy, TorchRLPolicy
from mtbench.errors import UsageError
from mtbench.evaluation import evaluate
from mtbench.policy import Policy

torch = pytest.importorskip("torch")
VECTOR = spaces.Box(-1, 1, (6,), dtype=np.float32)
FIRST = np.ones(4, dtype=bool)
GOES_ON = np.zeros(4, dtype=bool)


class Still(gym.Env):
    """An environment for its spaces."""

    def __init__(self, observation_space=VECTOR, action_space=None):
        self.observation_space, self.action_space = observation_space, action_space or spaces.Discrete(5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def batches(steps, rows=4, space=VECTOR):
    rng = np.random.default_rng(0)
    return [rng.uniform(space.low, space.high, (rows, *space.shape)).astype(space.dtype) for _ in range(steps)]


def played(policy, seed, steps=6, action_space=None, space=VECTOR):
    policy.start(4, seed, space, action_space or spaces.Discrete(5))
    return np.array([policy.act(batch, FIRST if t == 0 else GOES_ON) for t, batch in enumerate(batches(steps))])


def generators():
    return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().numpy()))  # noqa: NPY002


# ---- Stable-Baselines3 ----


@pytest.fixture
def sb3():
    return pytest.importorskip("stable_baselines3")


def recurrent(**kwargs):
    contrib = pytest.importorskip("sb3_contrib")
    return contrib.RecurrentPPO("MlpLstmPolicy", Still(), seed=3, device="cpu", n_steps=8, **kwargs)


def test_a_model_with_memory_plays_as_each_environment_alone(sb3):
    """One LSTM state for each row, dropped where its rollout begins and nowhere else."""
    model = recurrent()
    policy = SB3Policy(model)
    assert isinstance(policy, Policy)
    policy.start(4, 0, VECTOR, spaces.Discrete(5))
    rng = np.random.default_rng(1)
    states, begins = [None] * 4, FIRST
    for batch in batches(12):
        actions = policy.act(batch, begins)
        for i in range(4):
            if begins[i]:
                states[i] = None
            alone, states[i] = model.predict(batch[i], state=states[i], deterministic=True)
            assert actions[i] == alone
            for part, whole in zip(states[i], policy._state, strict=True):
                np.testing.assert_allclose(part[:, 0], whole[:, i], atol=1e-6)
        begins = rng.random(4) < 0.3


def test_sampling_is_seeded_and_disturbs_no_generator(sb3):
    policy = SB3Policy(sb3.PPO("MlpPolicy", Still(), device="cpu"), deterministic=False)
    before = generators()
    one, again, other = played(policy, 1), played(policy, 1), played(policy, 2)
    assert generators() == before
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_state_dependent_noise_is_the_policys_own(sb3):
    moves = spaces.Box(-1, 1, (2,), dtype=np.float32)
    model = sb3.PPO("MlpPolicy", Still(action_space=moves), use_sde=True, device="cpu")
    policy = SB3Policy(model, deterministic=False)
    one, again, other = (played(policy, seed, action_space=moves) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_exploration_of_dqn_is_seeded_too(sb3):
    """It draws from NumPy's global generator and from the model's action space."""
    model = sb3.DQN("MlpPolicy", Still(), device="cpu", buffer_size=10)
    model.exploration_rate = 0.7
    model.action_space.seed(5)
    policy = SB3Policy(model, deterministic=False)
    before = generators()
    one, again, other = played(policy, 1, 12), played(policy, 1, 12), played(policy, 2, 12)
    assert generators() == before
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    untouched = spaces.Discrete(5, seed=5)
    assert [model.action_space.sample() for _ in range(9)] == [untouched.sample() for _ in range(9)]


def test_a_model_behind_a_normalizer_and_pickles(sb3, tmp_path):
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    venv = VecNormalize(DummyVecEnv([Still]))
    model = sb3.PPO("MlpPolicy", venv, n_steps=64, n_epochs=1, seed=3, device="cpu").learn(64)
    venv.save(tmp_path / "normal.pkl")
    venv.obs_rms.mean += 0.5
    live = SB3Policy(model)
    model.save(tmp_path / "model.zip")
    loaded = sb3.PPO.load(tmp_path / "model.zip", device="cpu")
    stored = SB3Policy(loaded, normalizer=tmp_path / "normal.pkl")
    seen = batches(6)
    expected = np.array([model.predict(venv.normalize_obs(batch), deterministic=True)[0] for batch in seen])
    assert np.array_equal(played(live, 0), expected)
    digests = {live.digest, stored.digest, SB3Policy(loaded).digest, SB3Policy(loaded, deterministic=False).digest}
    assert len(digests) == 4
    for policy in (live, stored):
        before = generators()
        twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(policy))))
        assert generators() == before
        assert np.array_equal(played(twice, 0), played(policy, 0))
        assert (twice.digest, twice.agent, twice.train_seed, twice.step) == (policy.digest, "PPO", 3, 64)


def test_other_spaces_are_refused(sb3):
    policy = SB3Policy(sb3.PPO("MlpPolicy", Still(), device="cpu"))
    with pytest.raises(UsageError, match="other observations"):
        policy.start(2, 0, spaces.Box(-1, 1, (7,), dtype=np.float32), spaces.Discrete(5))
    with pytest.raises(UsageError, match="other actions"):
        policy.start(2, 0, VECTOR, spaces.Discrete(6))
    with pytest.raises(UsageError, match="needs a model"):
        SB3Policy(object())


@pytest.mark.parametrize("env_id", ["MTBabyAI-v0", "MTProcgen-Easy-v0", "ML10-v0"])
def test_each_kind_of_observation_and_action_is_evaluated(sb3, env_id, tmp_path):
    kwargs = {"max_steps": 3, "k": 1, "tasks": {"ML10-v0": ["push-v3"], "MTProcgen-Easy-v0": ["coinrun"]}.get(env_id)}
    try:
        env = gym.make(env_id, **kwargs)
    except gym.error.DependencyNotInstalled as missing:
        pytest.skip(str(missing))
    kind = {"MTBabyAI-v0": "MultiInputPolicy", "MTProcgen-Easy-v0": "CnnPolicy"}.get(env_id, "MlpPolicy")
    policy = SB3Policy(sb3.PPO(kind, env, device="cpu"), deterministic=False)
    split = {"split": "train", "tasks": [env.unwrapped.tasks[0]]}
    tasks = {**kwargs, "tasks": split["tasks"]}
    run = evaluate(env_id, policy, tmp_path, split="train", rollouts_per_task=2, num_envs=2, env_kwargs=tasks)
    assert run.episodes["length"].tolist() == [3, 3]
    assert (run.manifest["agent"], run.manifest["step"]) == ("PPO", 0)


def test_a_file_that_loads_a_model_is_a_policy(sb3, tmp_path, monkeypatch):
    """And its records know another model in the same file."""
    env = gym.make("MTPOPGym-v0", tasks=["MineSweeperEasy"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from stable_baselines3 import PPO\nfrom mtbench.adapters import SB3Policy\n"
        'policy = SB3Policy(PPO.load("ppo.zip", device="cpu"))\n'
    )
    settings = {"rollouts_per_task": 2, "env_kwargs": {"tasks": ["MineSweeperEasy"]}}
    digests = []
    for seed in (0, 1):
        sb3.PPO("MlpPolicy", env, seed=seed, device="cpu").save("ppo.zip")
        run = evaluate("MTPOPGym-v0", "mine.py:policy", f"run{seed}", **settings)
        assert run.manifest["train_seed"] == seed
        digests.append(run.manifest["policy_sha256"])
    assert digests[0] != digests[1]
    with pytest.raises(UsageError, match="policy_sha256"):
        evaluate("MTPOPGym-v0", "mine.py:policy", "run0", train_seed=0, **settings)


# ---- TorchRL ----


@pytest.fixture
def torchrl():
    return pytest.importorskip("torchrl")


def actor(one_hot=False, seed=0):
    from tensordict.nn import ProbabilisticTensorDictModule as Draw
    from tensordict.nn import TensorDictModule, TensorDictSequential
    from torchrl.modules import LSTMModule, OneHotCategorical

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lstm = LSTMModule(input_size=6, hidden_size=8, in_key="observation", out_key="embedding")
        head = TensorDictModule(torch.nn.Linear(8, 5), in_keys=["embedding"], out_keys=["logits"])
    kind = OneHotCategorical if one_hot else torch.distributions.Categorical
    return TensorDictSequential(lstm, head, Draw(["logits"], ["action"], distribution_class=kind))


def test_it_plays_what_torchrl_plays(torchrl):
    """A batch under TorchRL's own transforms: the same actions over the ends of rollouts."""
    from torchrl.envs import Compose, ExplorationType, GymWrapper, InitTracker, TransformedEnv, set_exploration_type

    from tests.clients.test_torchrl import skip_without

    skip_without("MTPOPGym-v0")
    module = popgym_actor()
    made = {"id": "MTPOPGym-v0", "num_envs": 4, "tasks": ["MineSweeperEasy"], "autoreset_mode": "SameStep"}
    env = GymWrapper(gym.make_vec(**made), categorical_action_encoding=True)
    env = TransformedEnv(env, Compose(InitTracker(), module[0].make_tensordict_primer()))
    env.set_seed(5)
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        expected = env.rollout(60, module, break_when_any_done=False)
    plain = gym.make_vec(**made)
    plain.reset(seed=5)
    seen, _ = plain.reset()
    policy = TorchRLPolicy(module)
    policy.start(4, 0, plain.single_observation_space, plain.single_action_space)
    begins, ends = FIRST, 0
    for t in range(60):
        actions = policy.act(seen, begins)
        np.testing.assert_array_equal(actions, expected["action"][:, t].numpy())
        seen, _, terminated, truncated, _ = plain.step(actions)
        begins = terminated | truncated
        ends += begins.sum()
    assert ends >= 4
    assert len(np.unique(expected["action"])) > 1
    env.close()


def popgym_actor():
    from tensordict.nn import ProbabilisticTensorDictModule as Draw
    from tensordict.nn import TensorDictModule, TensorDictSequential
    from torchrl.modules import LSTMModule

    with torch.random.fork_rng():
        torch.manual_seed(0)
        lstm = LSTMModule(input_size=30, hidden_size=8, in_key="observation", out_key="embedding")
        head = TensorDictModule(torch.nn.Linear(8, 27), in_keys=["embedding"], out_keys=["logits"])
        for weight in lstm.parameters():
            torch.nn.init.normal_(weight)  # so that memory decides
    kind = torch.distributions.Categorical
    return TensorDictSequential(lstm, head, Draw(["logits"], ["action"], distribution_class=kind))


def test_memory_is_dropped_where_a_rollout_begins(torchrl):
    policy, fresh = TorchRLPolicy(actor()), TorchRLPolicy(actor())
    seen = batches(8)
    policy.start(4, 0, VECTOR, spaces.Discrete(5))
    for t, batch in enumerate(seen[:4]):
        policy.act(batch, FIRST if t == 0 else GOES_ON)
    fresh.start(4, 0, VECTOR, spaces.Discrete(5))
    for t, batch in enumerate(seen[4:]):
        policy.act(batch, np.array([True, False, True, False]) if t == 0 else GOES_ON)
        fresh.act(batch, FIRST if t == 0 else GOES_ON)
    one, other = (p._carried["recurrent_state_h"] for p in (policy, fresh))
    assert torch.allclose(one[[0, 2]], other[[0, 2]], atol=1e-6)
    assert not torch.allclose(one[[1, 3]], other[[1, 3]], atol=1e-6)


@pytest.mark.parametrize("one_hot", [False, True])
def test_samples_of_a_module_are_seeded_and_disturb_no_generator(torchrl, one_hot):
    policy = TorchRLPolicy(actor(one_hot), deterministic=False)
    policy._module.train()
    before = generators()
    one, again, other = played(policy, 1), played(policy, 1), played(policy, 2)
    assert generators() == before
    assert policy._module.training
    assert one.shape == (6, 4)
    assert one.dtype == np.int64
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert np.array_equal(played(pickle.loads(pickle.dumps(policy)), 1), one)
    likeliest = TorchRLPolicy(actor(one_hot))
    assert np.array_equal(played(likeliest, 1), played(likeliest, 2))
    assert len({policy.digest, likeliest.digest, TorchRLPolicy(actor(one_hot, seed=1)).digest}) == 3


def test_real_actions_are_clipped_and_dicts_are_read_by_name(torchrl):
    from tensordict.nn import TensorDictModule

    moves = spaces.Box(-0.5, 0.5, (2,), dtype=np.float32)
    module = TensorDictModule(lambda image, mission: 0.0 * mission[:, :2] + image.sum(), ["image", "mission"], ["move"])
    policy = TorchRLPolicy(module, action_key="move")
    shown = spaces.Dict({"image": spaces.Box(0, 9, (3,), np.uint8), "mission": spaces.MultiDiscrete([4, 4, 4])})
    policy.start(2, 0, shown, moves)
    actions = policy.act({"image": np.ones((2, 3), np.uint8), "mission": np.ones((2, 3), int)}, np.ones(2, bool))
    assert actions.dtype == np.float32
    assert actions.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    policy.start(2, 0, shown, spaces.Discrete(4))
    with pytest.raises(UsageError, match=r"shape \(2, 2\)"):
        policy.act({"image": np.ones((2, 3), np.uint8), "mission": np.ones((2, 3), int)}, np.ones(2, bool))


def test_modules_that_do_not_fit_are_refused(torchrl):
    from tensordict.nn import TensorDictModule

    with pytest.raises(UsageError, match="TensorDictModule"):
        TorchRLPolicy(torch.nn.Linear(2, 2))
    with pytest.raises(UsageError, match="action_key"):
        TorchRLPolicy(TensorDictModule(torch.nn.Linear(2, 2), ["observation"], ["logits"]))
    policy = TorchRLPolicy(TensorDictModule(torch.nn.Linear(2, 2), ["pixels"], ["action"]))
    with pytest.raises(UsageError, match=r"only \['observation'\]"):
        policy.start(1, 0, VECTOR, spaces.Discrete(2))
