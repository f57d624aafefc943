"""Encoders: one for every registered ID, and one from outside, from environments to updates."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mtbench_agents.transformer import encoders, graphs
from mtbench_agents.transformer.acting import ActingModel, Inputs
from mtbench_agents.transformer.collector import Collector
from mtbench_agents.transformer.config import CollectConfig
from mtbench_agents.transformer.encoders import Encoder, make_encoder
from mtbench_agents.transformer.encoders.base import Numbers, Timesteps
from mtbench_agents.transformer.encoders.grid import GridMissionEncoder
from mtbench_agents.transformer.encoders.image import ImageEncoder, shifted
from mtbench_agents.transformer.encoders.vector import VectorEncoder
from mtbench_agents.transformer.learner import Learner
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.policy import TransformerPolicy
from mtbench_agents.transformer.replay import Replay, Rollout
from mtbench_agents.transformer.slices import prepare
from mtbench_agents.transformer.trees import tree_map

from mtbench.errors import UsageError
from mtbench.registration import TABLE

from .copycat import floats
from .test_collector import CPU, LEARNING
from .test_collector import MODEL as VECTOR_MODEL
from .waiting import NothingWaits

MODEL = dataclasses.replace(VECTOR_MODEL, channels=(4, 8), dropout=0.0)
ACTIONS = gym.spaces.Discrete(3)
EXPECTED = {"popgym": VectorEncoder, "metaworld": VectorEncoder, "procgen": ImageEncoder, "atari": ImageEncoder}
EXPECTED["babyai"] = GridMissionEncoder

REWARD = gym.spaces.Box(-np.inf, np.inf, (1,), dtype=np.float32)
FRAME = gym.spaces.Box(0, 255, (12, 10, 3), dtype=np.uint8)
SPACES = {
    "vectors": gym.spaces.Dict({"one": gym.spaces.Box(-1, 1, (3,), dtype=np.float32), "reward": REWARD}),
    "images": gym.spaces.Dict({"image": FRAME, "reward": REWARD}),
    "grids and missions": gym.spaces.Dict(
        {
            "image": gym.spaces.Box(0, 10, (7, 7, 3), dtype=np.uint8),
            "mission": gym.spaces.MultiDiscrete([31] * 4),
            "direction": gym.spaces.Box(0, 1, (4,), dtype=np.float32),
        }
    ),
}


def observed(space, rng, *shape):
    """Random observations, ``(*shape, ...)``."""
    if isinstance(space, gym.spaces.Dict):
        return {name: observed(part, rng, *shape) for name, part in space.items()}
    if isinstance(space, gym.spaces.MultiDiscrete):
        return rng.integers(space.nvec, size=(*shape, *space.shape))
    if space.dtype == np.uint8:
        return rng.integers(int(space.high.max()) + 1, size=(*shape, *space.shape), dtype=np.uint8)
    return rng.normal(size=(*shape, *space.shape)).astype(np.float32)


def filled(space, rollouts=12):
    rng = np.random.default_rng(0)
    replay = Replay(1000, tree_map(lambda one: one[0], observed(space, rng, 1)), np.zeros((), dtype=np.int64))
    for _ in range(rollouts):
        T = int(rng.integers(5, 13))
        rewards = rng.normal(size=T).astype(np.float32)
        replay.add(Rollout(observed(space, rng, T + 1), rng.integers(3, size=T), rewards, True))
    return replay


def made(space, **changes):
    return AgentModel.seeded(0, dataclasses.replace(MODEL, **changes), LEARNING, space, ACTIONS)


@pytest.mark.parametrize("objective", ["k-shot", "k-episode"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_every_id_has_its_encoder(row, objective):
    env = gym.make(row.id, objective=objective)
    encoder = make_encoder(env.observation_space, 3, MODEL).eval()
    assert type(encoder) is EXPECTED[row.kwargs["suite"].split("-")[0]]
    observation, _ = env.reset(seed=0)
    batch = tree_map(lambda one: torch.from_numpy(np.stack([one, one])), observation)
    out = encoder(Timesteps(batch, torch.zeros(2, 3), torch.zeros(2), torch.ones(2)))
    assert out.shape == (2, MODEL.width)
    assert torch.allclose(out[0], out[1])
    env.close()


@pytest.mark.parametrize("kind", SPACES)
def test_everything_an_encoder_is_shown_counts(kind):
    """Each part of the observation, the previous action, the previous reward and the start change what it says."""
    space, rng = SPACES[kind], np.random.default_rng(0)
    encoder = make_encoder(space, 3, MODEL).eval()
    one, other = (tree_map(torch.from_numpy, observed(space, rng, 2)) for _ in range(2))
    base = Timesteps(one, torch.zeros(2, 3), torch.zeros(2), torch.zeros(2))
    changed = [dataclasses.replace(base, observation={**one, name: other[name]}) for name in one]
    changed.append(dataclasses.replace(base, previous_action=torch.eye(3)[:2]))
    changed.append(dataclasses.replace(base, previous_reward=torch.ones(2)))
    changed.append(dataclasses.replace(base, start=torch.ones(2)))
    for timesteps in changed:
        assert (encoder(timesteps) - encoder(base)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", SPACES)
def test_updates_and_acting_never_make_a_device_wait(kind):
    learner, replay = Learner(made(SPACES[kind]), LEARNING, 0, CPU), filled(SPACES[kind])
    if kind == "grids and missions":
        learner.model.encoder.reads_once = False
    batch = replay.sample(8, 12, np.random.default_rng(0))
    learner.update(batch)
    for length in (None, 12):
        slices = prepare(batch, CPU, length).slices
        with NothingWaits():
            learner._update(slices)
    acting = ActingModel(learner.model)
    memory = acting.backbone.new_memory(2, CPU, tensors=True)
    now = tree_map(torch.from_numpy, observed(SPACES[kind], np.random.default_rng(0), 2))
    steps = torch.tensor([3, 0])
    with NothingWaits():
        acting(Inputs(now, torch.zeros(2, dtype=torch.int64), torch.zeros(2), steps, torch.rand(2, 1)), memory, 4)


@pytest.mark.parametrize("kind", SPACES)
def test_a_compiled_update_is_one_graph_and_the_same_update(kind, monkeypatch):
    monkeypatch.setattr(graphs, "BACKEND", "aot_eager")
    replay = filled(SPACES[kind])
    changes = [dataclasses.replace(LEARNING, compile=how, filter_threshold=-1e6, rate=1e-4) for how in (False, True)]
    # Frames stay where they are here: shifts are drawn for other shapes.
    learners = [Learner(made(SPACES[kind], shift=0), learning, 0, CPU, context=12) for learning in changes]
    for number in range(6):
        batch = replay.sample(8, 12, np.random.default_rng(number))
        plain, compiled = (floats(learner.update(batch)) for learner in learners)
        assert plain == pytest.approx(compiled, rel=0.02, abs=0.02), number
    moving = Learner(made(SPACES[kind]), changes[1], 0, CPU, context=12)
    assert floats(moving.update(filled(SPACES[kind]).sample(8, 12, np.random.default_rng(0))))


def test_frames_of_a_slice_move_alike_and_borders_are_repeated():
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(256, size=(40, 9, 7, 3), dtype=np.uint8))
    sequence = torch.arange(40) // 4
    moved = shifted(frames, 3, sequence)
    assert moved.dtype == torch.uint8
    padded = F.pad(frames.permute(0, 3, 1, 2).float(), (3, 3, 3, 3), mode="replicate").permute(0, 2, 3, 1)
    moves = set()
    for first in range(0, 40, 4):
        fits = [
            (down, right)
            for down in range(7)
            for right in range(7)
            if torch.equal(
                moved[first : first + 4].float(), padded[first : first + 4, down : down + 9, right : right + 7]
            )
        ]
        assert len(fits) == 1
        moves.add(fits[0])
    assert len(moves) > 5


def test_frames_move_in_training_alone():
    encoder = make_encoder(FRAME, 3, MODEL)
    frames = torch.from_numpy(observed(FRAME, np.random.default_rng(0), 6))
    timesteps = Timesteps(frames, torch.zeros(6, 3), torch.zeros(6), torch.zeros(6), torch.arange(6))
    first, second = encoder(timesteps), encoder(timesteps)
    assert not torch.allclose(first, second)
    still = encoder.eval()(timesteps)
    assert torch.equal(still, encoder(timesteps))
    assert torch.equal(still, encoder.train()(dataclasses.replace(timesteps, sequence=None)))


def test_missions_that_are_alike_are_read_once():
    encoder, missions = make_encoder(SPACES["grids and missions"], 3, MODEL), torch.randint(31, (3, 4))
    missions = missions[torch.tensor([0, 0, 1, 2, 1])]
    once = encoder._read(missions)
    encoder.reads_once = False
    assert torch.allclose(once, encoder._read(missions), atol=1e-6)


def test_fine_inputs_tell_small_numbers_apart_beside_the_vector_as_it_is():
    """Before the normalization, which has seen nothing here and passes them on; the previous reward stays as it is."""
    space = gym.spaces.Box(-1, 1, (5,), dtype=np.float32)
    shown = torch.tensor([[-1.0, 0.0, 0.01, 0.02, 1.0]])
    timesteps = Timesteps(shown, torch.zeros(1, 3), torch.full((1,), 0.01), torch.zeros(1))
    encoders = [
        Numbers(space, ["observation"], 3, dataclasses.replace(VECTOR_MODEL, fine_inputs=scale))
        for scale in (0.0, 20.0)
    ]
    plain, fine = (encoder(timesteps)[0] for encoder in encoders)
    assert [encoder.size for encoder in encoders] == [len(plain), len(fine)]
    assert torch.equal(fine[:5], shown[0])
    low, zero, small, double, high = fine[5:10].tolist()
    assert (low, zero, high) == pytest.approx((-1, 0, 1))
    assert small == pytest.approx(np.log(1.2) / np.log(21))
    assert double - small > 5 * 0.01
    assert torch.equal(fine[10:], plain[5:])


@pytest.mark.parametrize("fine", [0.0, 20.0])
def test_fractions_are_normalized_without_the_whole_numbers_of_other_tasks(fine):
    """One task marks its cards by 0 and 1 where the other measures an angle: as it is, the angle is small."""
    space, rng = gym.spaces.Box(-4, 4, (2,), dtype=np.float32), np.random.default_rng(0)
    model = dataclasses.replace(VECTOR_MODEL, fractions=True, fine_inputs=fine)
    numbers, plain = (
        Numbers(space, ["observation"], 3, one) for one in (model, dataclasses.replace(model, fractions=False))
    )
    angles, clock = (torch.tensor(rng.uniform(-0.1, 0.1, 5000), dtype=torch.float32) for _ in range(2))
    cards = torch.tensor(rng.integers(0, 2, 5000), dtype=torch.float32)

    def timesteps(shown):
        observed = torch.stack([shown, clock.repeat(len(shown) // len(clock))], dim=1)
        return Timesteps(observed, torch.zeros(len(shown), 3), torch.zeros(len(shown)), torch.zeros(len(shown)))

    for one in (numbers, plain):
        one.observe(timesteps(torch.cat([angles, cards])), torch.ones(10_000, dtype=torch.bool))
    with torch.no_grad():
        angle, as_before = (one(timesteps(angles)) for one in (numbers, plain))
        card = numbers(timesteps(cards))
    begin = plain.size - 5  # the reward, 3 actions and the start are last
    added = slice(begin, begin + 2)
    assert numbers.size == plain.size + 2
    assert torch.allclose(torch.cat([angle[:, :begin], angle[:, added.stop :]], dim=1), as_before, atol=1e-5)
    apart = angle[:, begin] + angle[:, 0]
    assert angle[:, 0].std().item() < 0.15
    assert apart.std().item() == pytest.approx(np.sqrt(2), rel=0.05), "half of all timesteps are 0"
    assert np.corrcoef(apart, angles)[0, 1] == pytest.approx(1)
    assert not card[:, begin].any(), "cards are there as before"
    assert torch.allclose(angle[:, begin + 1], torch.zeros(5000), atol=1e-5), "a clock does not count twice"


@pytest.mark.parametrize(
    ("space", "changes", "message"),
    [
        (gym.spaces.MultiBinary(4), {}, r"no encoder .*VectorEncoder takes vectors.*CONTRIBUTING\.md"),
        (gym.spaces.Dict({"a": FRAME, "b": FRAME}), {}, "no encoder"),
        (FRAME, {"channels": (4, 4, 4, 4)}, r"12 x 10 pixels cannot be halved 4 times.*16 x 16.*model\.channels"),
        (FRAME, {"channels": (6,)}, r"model\.channels. must be multiples of 4, got \[6\]"),
    ],
)
def test_what_cannot_be_encoded_is_refused_with_what_to_do(space, changes, message):
    with pytest.raises(UsageError, match=f"(?s){message}"):
        make_encoder(space, 2, dataclasses.replace(MODEL, **changes))


class SymbolEncoder(Encoder):
    """From outside."""

    takes = "symbols"

    def __init__(self, space, action_size, config):
        super().__init__(space, action_size, config)
        self.symbols = torch.nn.Embedding(int(space.n), config.width)
        self.rest = torch.nn.Linear(action_size + 2, config.width)

    @classmethod
    def accepts(cls, space):
        return isinstance(space, gym.spaces.Discrete)

    def forward(self, timesteps):
        extra = [timesteps.previous_action, timesteps.previous_reward[..., None], timesteps.start[..., None]]
        return self.symbols(timesteps.observation) + self.rest(torch.cat(extra, dim=-1))


class Symbols(gym.Env):
    """Name the symbol shown; nine of them make a rollout."""

    observation_space, action_space = gym.spaces.Discrete(4), gym.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 9
        return self._shown(), {}

    def step(self, action):
        reward = float(action == self.shown)
        self.left -= 1
        return self._shown(), reward, self.left == 0, False, {}

    def _shown(self):
        self.shown = int(self.np_random.integers(4))
        return self.shown


def test_an_encoder_from_outside_passes_through_collecting_replay_learning_and_playing(monkeypatch):
    """One class, and its name in the list."""
    with pytest.raises(UsageError, match="no encoder"):
        make_encoder(Symbols.observation_space, 2, MODEL)
    monkeypatch.setattr(encoders, "ENCODERS", (*encoders.ENCODERS, SymbolEncoder))
    envs = gym.vector.SyncVectorEnv([Symbols] * 3)
    spaces = envs.single_observation_space, envs.single_action_space
    model = AgentModel.seeded(0, MODEL, LEARNING, *spaces)
    collector = Collector(envs, CollectConfig(epsilon_steps=100), 0, CPU)
    replay = Replay(500, *collector.examples)
    for rollout, _ in collector.collect(ActingModel(model), 90):
        assert len(rollout.rewards) == 9
        replay.add(rollout)
    before = model.encoder.symbols.weight.clone()
    learner = Learner(model, LEARNING, 0, CPU)
    for update in range(3):
        learner.update(replay.sample(4, MODEL.context, np.random.default_rng(update)))
    assert not torch.equal(before, model.encoder.symbols.weight)

    policy = TransformerPolicy(model, CPU, "symbols", 0, 0)
    policy.start(3, 0, *spaces)
    observations, _ = envs.reset(seed=0)
    actions = policy.act(observations, np.ones(3, dtype=np.bool_))
    assert actions.shape == (3,)
