"""Updates: the four combinations learn, gradients stay where they belong, padding counts nothing."""

import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from mtbench_agents.transformer import learner as learner_module
from mtbench_agents.transformer.acting import Player
from mtbench_agents.transformer.config import LearningConfig, ModelConfig
from mtbench_agents.transformer.learner import Learner, NonFiniteLossError
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.replay import Replay, Rollout

CPU = torch.device("cpu")
MODEL = ModelConfig(
    encoder=(32,),
    width=32,
    feedforward=32,
    layers=1,
    heads=2,
    context=12,
    head=(32, 32),
    critics=2,
    bins=32,
    dropout=0.0,
)
LEARNING = LearningConfig(
    discounts=(0.1, 0.9), batch_size=16, rate=3e-3, warmup=1, target_rate=0.05, reward_multiplier=10.0, clip=10.0
)
COMBINATIONS = [(a, c) for a in ("independent", "dependent") for c in ("independent", "dependent")]


def make(actor="independent", critic="independent", actions=None, **changes):
    learning = dataclasses.replace(LEARNING, actor=actor, critic=critic, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        space = gym.spaces.Box(-5, 5, (3,), dtype=np.float32)
        model = AgentModel(MODEL, learning, space, actions or gym.spaces.Discrete(3))
    return Learner(model, learning, 0, CPU)


def copycat(continuous=False, rollouts=300, seed=0):
    """The reward is for naming what was shown one step before: memory, and nothing but."""
    rng = np.random.default_rng(seed)
    action = np.zeros(1, np.float32) if continuous else np.zeros((), np.int64)
    replay = Replay(10_000, np.zeros(3, np.float32), action)
    for _ in range(rollouts):
        length = int(rng.integers(5, 13))
        shown = rng.integers(3, size=length + 1)
        observations = np.eye(3, dtype=np.float32)[shown]
        before = np.concatenate([[0], shown[: length - 1]])
        if continuous:
            actions = rng.uniform(-1, 1, size=(length, 1)).astype(np.float32)
            rewards = -np.abs(actions[:, 0] - (before - 1) * 0.8)
        else:
            actions = rng.integers(3, size=length)
            rewards = (actions == before).astype(np.float32)
        replay.add(Rollout(observations, actions, rewards.astype(np.float32), True))
    return replay


def train(learner, replay, updates):
    numbers = {}
    for _ in range(updates):
        numbers = learner.update(replay.sample(64, 12, np.random.default_rng(learner.updates)))
    return numbers


def trained_until(learnt, learner, replay, most_updates):
    """Train for 100 updates at a time; whether it has learnt by the last at latest."""
    for _ in range(most_updates // 100):
        train(learner, replay, 100)
        if learnt():
            return True
    return False


def answers(model, continuous=False):
    """How often (or how closely) the policy names the previous observation."""
    rng = np.random.default_rng(99)
    space = gym.spaces.Box(-1, 1, (1,), dtype=np.float32) if continuous else gym.spaces.Discrete(3)
    play = Player(200, space, rng, CPU)
    model.eval()
    play.restart(np.ones(200, dtype=bool))
    shown = rng.integers(3, size=(9, 200))
    score = []
    for t in range(9):
        if t:
            play.restart(np.zeros(200, dtype=bool))
        action = play.act(model, np.eye(3, dtype=np.float32)[shown[t]])
        if t:
            target = (shown[t - 1] - 1) * 0.8 if continuous else shown[t - 1]
            score.append(np.abs(action[:, 0] - target).mean() if continuous else (action == target).mean())
            reward = -np.abs(action[:, 0] - target) if continuous else action == target
            play.received(reward.astype(np.float32))
        play.took(action)
    return float(np.mean(score))


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
def test_every_combination_learns_from_random_play(actor, critic):
    """Neither what was shown nor the action alone says anything of the reward: it takes memory to begin at all."""
    rate = 2e-3 if (actor, critic) == ("dependent", "dependent") else 3e-3
    learner = make(actor, critic, rate=rate, warmup=100)
    assert answers(learner.model) < 0.45
    assert trained_until(lambda: answers(learner.model) > 0.8, learner, copycat(), most_updates=800)


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
def test_every_combination_learns_continuous_actions(actor, critic):
    learner = make(actor, critic, actions=gym.spaces.Box(-1, 1, (1,), dtype=np.float32))
    before = answers(learner.model, continuous=True)
    replay = copycat(continuous=True)
    assert trained_until(lambda: answers(learner.model, continuous=True) < 0.3 * before, learner, replay, 500)


def gradients(learner, name):
    t = learner._transitions(learner.prepare(copycat().sample(8, 12, np.random.default_rng(0))))
    losses, _ = learner.losses(t, learner._targets(t))
    learner.optimizer.zero_grad()
    losses[name].backward()
    return {n: p.grad for n, p in learner.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
@pytest.mark.parametrize("actions", [gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (1,), dtype=np.float32)])
def test_the_actor_loss_does_not_reach_the_critic(actor, critic, actions):
    learner = make(actor, critic, actions=actions)
    replay = copycat(continuous=isinstance(actions, gym.spaces.Box))
    t = learner._transitions(learner.prepare(replay.sample(8, 12, np.random.default_rng(0))))
    losses, _ = learner.losses(t, learner._targets(t))
    losses["actor"].backward()
    touched = {n for n, p in learner.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not any(name.startswith(("critic", "popart", "target")) for name in touched)
    assert any(name.startswith("actor") for name in touched)
    assert any(name.startswith("backbone") for name in touched), "the trunk is shared"


def test_the_critic_loss_reaches_critic_and_trunk_but_not_the_actor():
    touched = gradients(make(), "critic")
    assert any(name.startswith("critic") for name in touched)
    assert any(name.startswith("encoder") for name in touched)
    assert not any(name.startswith(("actor", "target")) for name in touched)


def test_padding_counts_exactly_nothing():
    """The same slices with garbage in the padding give the same losses and gradients, to the bit."""
    results = []
    for garbage in (0.0, 1e6):
        learner = make()
        learner.model.train()
        batch = copycat().sample(8, 12, np.random.default_rng(0))
        padding = ~np.concatenate([batch.mask[:, :1], batch.mask], axis=1)
        assert padding.any()
        batch.observations[padding] = garbage
        batch.rewards[padding] = garbage
        numbers = learner.update(batch)
        results.append((numbers, [p.detach().clone() for p in learner.model.optimized()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
def test_working_in_parts_changes_nothing(actor, critic, monkeypatch):
    """Gradients of heads and trunk, whatever the parts; sampled actions aside, so a policy that knows what it wants."""
    gradients = []
    for floats in (1, 2**12, 2**30):
        monkeypatch.setattr(learner_module, "_CACHED_FLOATS", floats)
        learner = make(actor, critic)
        with torch.no_grad():
            for head in (learner.model.actor, learner.model.target_actor):
                head.out.bias.view(2, 3)[:, 1] = 100.0
        numbers = learner._accumulate(learner.prepare(copycat().sample(8, 12, np.random.default_rng(0))))
        gradients.append({n: p.grad for n, p in learner.model.named_parameters() if p.grad is not None} | numbers)
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        for name, gradient in gradients[0].items():
            assert torch.allclose(other[name], gradient, atol=1e-5, rtol=1e-4), name


def test_updates_are_repeatable_and_leave_the_global_generator_alone():
    replay = copycat()
    runs = []
    for _ in range(2):
        learner = make()
        state = torch.get_rng_state()
        train(learner, replay, 5)
        assert torch.equal(state, torch.get_rng_state())
        runs.append([p.detach().clone() for p in learner.model.parameters()])
        torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_a_nan_is_refused_by_name_before_it_does_harm():
    learner = make()
    replay = copycat()
    train(learner, replay, 3)
    before = [p.detach().clone() for p in learner.model.optimized()]
    batch = replay.sample(4, 12, np.random.default_rng(0))
    batch.rewards[:, 1] = np.nan
    with pytest.raises(NonFiniteLossError, match="rewards are not finite at update 3"):
        learner.update(batch)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.optimized(), strict=True))
    assert learner.updates == 3


def test_warmup_is_linear():
    learner = make(warmup=10)
    replay = copycat()
    rates = []
    for _ in range(12):
        train(learner, replay, 1)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([LEARNING.rate * min(1, (i + 1) / 10) for i in range(12)])


def test_the_rate_cools_down_before_the_end():
    learner = make(warmup=2, cooldown=4)
    learner.total = 10
    rates = []
    for learner.updates in range(12):
        rates.append(learner.rate / LEARNING.rate)
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0])


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
def test_compiled_updates_are_the_same_updates(actor, critic, monkeypatch):
    """Traced by torch.compile, run without a code generator: nothing to install, and numbers to compare."""
    monkeypatch.setattr(learner_module, "_BACKEND", "aot_eager")
    replay = copycat()
    plain, compiled = make(actor, critic), make(actor, critic, compile=True)
    for _ in range(4):
        rng = np.random.default_rng(plain.updates)
        batch = replay.sample(int(rng.integers(4, 9)), 12, rng)
        one, two = plain.update(batch), compiled.update(batch)
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)
    for a, b in zip(plain.model.optimized(), compiled.model.optimized(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_operations_are_counted():
    """Against a count by hand: encoder, Transformer and heads, 2 operations a weight, 3 passes with gradients."""
    learner = make()
    batch = copycat().sample(8, 12, np.random.default_rng(0))
    assert learner.flop_utilization(1000.0) == 0.0
    learner.update(batch)
    N, (B, L) = int(batch.mask.sum()), batch.mask.shape
    model, G, E = learner.model, len(LEARNING.discounts), MODEL.critics
    trunk = sum(
        p.numel() for n, p in model.named_parameters() if p.dim() == 2 and n.startswith(("encoder", "backbone"))
    )
    actor = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("actor"))
    first, later = 32 * 32, 32 * 32 + 32 * 32  # of one critic
    by_hand = 6 * B * (L + 1) * trunk
    by_hand += (6 + 2) * N * actor  # the policy, and the target policy
    by_hand += 6 * N * E * (first + G * later)  # actions taken
    by_hand += 2 * N * E * (2 * first + 2 * G * later)  # actions sampled, and targets
    assert learner._flops_per_token * N == pytest.approx(by_hand, rel=0.05)
    assert learner.flop_utilization(1000.0) > 0


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_losses_of_20_updates_are_the_golden_ones(actor, critic, kind):
    """Loose enough for another processor's rounding, which later updates amplify."""
    from .golden_losses import FILE, UPDATES, losses

    golden = json.loads(FILE.read_text())[f"{actor}/{critic}/{kind}"]
    now = losses(actor, critic, kind)
    for name, values in golden.items():
        assert len(values) == UPDATES
        assert now[name][:5] == pytest.approx(values[:5], rel=1e-3, abs=1e-4)
        assert now[name] == pytest.approx(values, rel=0.05, abs=5e-3)


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_bfloat16_learns_what_float32_learns(actor, critic, kind, monkeypatch):
    """What a GPU does, here without one: the same losses to the precision of the format."""
    actions = gym.spaces.Box(-1, 1, (1,), dtype=np.float32) if kind == "continuous" else None
    replay = copycat(continuous=kind == "continuous")
    single = make(actor, critic, actions=actions, rate=1e-4)
    monkeypatch.setattr(learner_module, "_half_precision", lambda device: True)
    half = make(actor, critic, actions=actions, rate=1e-4)
    for update in range(5):
        batch = replay.sample(8, 12, np.random.default_rng(update))
        monkeypatch.setattr(learner_module, "_half_precision", lambda device: False)
        one = single.update(batch)
        monkeypatch.setattr(learner_module, "_half_precision", lambda device: True)
        two = half.update(batch)
        assert two["critic"] == pytest.approx(one["critic"], rel=0.05, abs=0.02)
        assert two["target"] == pytest.approx(one["target"], rel=0.05, abs=0.05)
    assert all(p.dtype == torch.float32 for p in half.model.parameters()), "weights stay in full precision"
    changed = [not torch.equal(a, b) for a, b in zip(single.model.optimized(), half.model.optimized(), strict=True)]
    assert any(changed), "it did compute in bfloat16"
