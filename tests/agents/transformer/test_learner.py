"""Updates: the four combinations learn, gradients stay where they belong, padding counts nothing."""

import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from mtbench_agents.transformer import graphs
from mtbench_agents.transformer import learner as learner_module
from mtbench_agents.transformer.learner import Learner, NonFiniteLossError, Totals
from mtbench_agents.transformer.model import AgentModel
from mtbench_agents.transformer.replay import Replay, Rollout
from mtbench_agents.transformer.slices import prepare

from .copycat import (
    ACTIONS,
    COMBINATIONS,
    CPU,
    LEARNING,
    MODEL,
    answers,
    copycat,
    floats,
    make,
    switched,
    train,
    trained_until,
)
from .waiting import NothingWaits


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
def test_every_combination_learns_from_random_play(actor, critic):
    """Neither what was shown nor the action alone says anything of the reward: it takes memory to begin at all."""
    rate = 2e-3 if (actor, critic) == ("dependent", "dependent") else 3e-3
    learner = make(actor, critic, rate=rate, warmup=100)
    assert answers(learner.model) < 0.45
    assert trained_until(lambda: answers(learner.model) > 0.8, learner, copycat(), most_updates=800)


def test_a_baseline_leaves_what_an_action_is_worth_among_larger_values():
    """What is shown pays up to 40, the right action 1: a small part of a bin, unless the baseline takes the rest."""
    bins, pay = {"bins": 64, "bin_limit": 1e4, "hl_gauss": 0.75}, 20.0
    score = []
    for baseline in (0.0, 1.0):
        learner = make(rate=3e-3, warmup=100, discounts=(0.1,), model=bins, baseline=baseline)
        train(learner, copycat(pay=pay), 800)
        score.append(answers(learner.model, pay=pay))
    assert score[1] > 0.7
    assert score[1] > score[0] + 0.1


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
def test_every_combination_learns_continuous_actions(actor, critic):
    learner = make(actor, critic, actions=gym.spaces.Box(-1, 1, (1,), dtype=np.float32))
    before = answers(learner.model, continuous=True)
    replay = copycat(continuous=True)
    assert trained_until(lambda: answers(learner.model, continuous=True) < 0.3 * before, learner, replay, 500)


def gradients(learner, name):
    t = learner.losses.transitions(learner.prepare(copycat().sample(8, 12, np.random.default_rng(0))).slices)
    losses, _ = learner.losses.losses(t, learner.losses.targets(t))
    learner.optimizer.zero_grad()
    losses[name].backward()
    return {n: p.grad for n, p in learner.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
@pytest.mark.parametrize("actions", [gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (1,), dtype=np.float32)])
def test_the_actor_loss_does_not_reach_the_critic(actor, critic, actions):
    learner = make(actor, critic, actions=actions)
    replay = copycat(continuous=isinstance(actions, gym.spaces.Box))
    t = learner.losses.transitions(learner.prepare(replay.sample(8, 12, np.random.default_rng(0))).slices)
    losses, _ = learner.losses.losses(t, learner.losses.targets(t))
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


@pytest.mark.parametrize(
    ("actor", "critic", "baseline"), [*((*both, 0.0) for both in COMBINATIONS), ("independent", "independent", 1.0)]
)
def test_working_in_parts_changes_nothing(actor, critic, baseline, monkeypatch):
    """Gradients of heads and trunk, whatever the parts; sampled actions aside, so a policy that knows what it wants."""
    gradients = []
    for cached in (1, 2**12, 2**30):
        monkeypatch.setattr(learner_module, "_CACHED_FLOATS", cached)
        learner = certain(make(actor, critic, baseline=baseline))
        slices = learner.prepare(copycat().sample(8, 12, np.random.default_rng(0))).slices
        gradients.append(named_gradients(learner, slices))
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


def test_every_weight_moves_by_its_own_gradient():
    """Against the plain optimizer: the fused one takes a gradient's numbers in the order of memory, which may not be
    its parameter's.
    """
    learner = make(clip=1e9)
    batch = copycat().sample(8, 12, np.random.default_rng(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)  # as the learner does for this update
        gradients, _ = make(clip=1e9).gradients(learner.prepare(batch).slices)
    assert any(not gradient.is_contiguous() for gradient in gradients)
    wanted = [p.detach().clone().requires_grad_() for p in learner.model.optimized()]
    plain = torch.optim.AdamW(wanted, lr=learner.rate, weight_decay=LEARNING.weight_decay, fused=False, foreach=False)
    for parameter, gradient in zip(wanted, gradients, strict=True):
        parameter.grad = gradient
    plain.step()
    learner.update(batch)
    for mine, theirs in zip(learner.model.optimized(), wanted, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("switches", [False, True])
@pytest.mark.parametrize(("kind", "update"), [("discrete", "independent"), ("continuous", "dependent")])
def test_a_compiled_update_is_one_graph_and_the_same_update(kind, update, switches, monkeypatch):
    """Traced by torch.compile, where a break is an error, and run without a code generator, to compare numbers.

    The filter lets everything through: an advantage near 0 may be above it in one and below it in the other.
    """
    monkeypatch.setattr(graphs, "BACKEND", "aot_eager")
    changes = {"actions": ACTIONS[kind], "rate": 1e-4, "filter_threshold": -1e6, "ema_rate": 0.1}
    changes |= switched(switches, update, update)
    plain, compiled = (make(update, update, compile=how, **changes) for how in (False, True))
    batch = copycat(continuous=kind == "continuous").sample(8, 12, np.random.default_rng(0))
    for number in range(40):
        one, two = (floats(learner.update(batch)) for learner in (plain, compiled))
        # Rounding decides which way Adam moves a weight without a gradient: two plain runs drift apart as far.
        assert one == pytest.approx(two, rel=0.01 if number < 5 else 0.15, abs=0.05), number


def test_the_memory_of_squared_gradients_is_a_setting():
    """After one update, it is a share of the squared gradient."""
    batch = copycat().sample(8, 12, np.random.default_rng(0))
    squares = {}
    for beta2 in (0.95, 0.999):
        learner = make(beta2=beta2)
        learner.update(batch)
        squares[beta2] = learner.optimizer.state[learner.model.critic.last]["exp_avg_sq"]
    assert squares[0.95].max() > 0
    assert torch.allclose(squares[0.95] / 0.05, squares[0.999] / 0.001, rtol=1e-3)


def test_the_weights_that_act_follow_the_newest():
    """Exponential averages of all but the targets, with the newest statistics; learning itself is the same."""
    plain, learner = make(baseline=1.0), make(baseline=1.0, ema_rate=0.25)
    assert plain.acting is plain.model
    averages = [p.detach().clone() for part in _followed(learner.model) for p in part.parameters()]
    batch = copycat().sample(8, 12, np.random.default_rng(0))
    for _ in range(5):
        assert floats(plain.update(batch)) == floats(learner.update(batch))
        newest = [p.detach() for part in _followed(learner.model) for p in part.parameters()]
        averages = [0.75 * average + 0.25 * new for average, new in zip(averages, newest, strict=True)]
    found = [p for part in _followed(learner.acting) for p in part.parameters()]
    for average, parameter in zip(averages, found, strict=True):
        torch.testing.assert_close(parameter, average)
        assert not parameter.requires_grad
    for one, two in zip(learner.acting.encoder.buffers(), learner.model.encoder.buffers(), strict=True):
        assert torch.equal(one, two)


def _followed(model):
    return model.encoder, model.backbone, model.actor, model.critic, *([model.baseline] if model.baseline else [])


def certain(learner):
    """Make the policies certain, so that their samples do not depend on random draws."""
    with torch.no_grad():
        for head in (learner.model.actor, learner.model.target_actor):
            head.out.bias.view(2, 3)[:, 1] = 100.0
    return learner


def named_gradients(learner, slices):
    found, numbers = learner.gradients(slices)
    names = [name for name, parameter in learner.model.named_parameters() if parameter.requires_grad]
    return {name: g for name, g in zip(names, found, strict=True) if g is not None} | numbers


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
@pytest.mark.parametrize("rows", ["packed", "padded"])
@pytest.mark.parametrize("convolution", [0, 3])
def test_fixed_shapes_change_nothing(actor, critic, rows, convolution):
    """Slices that share rows or are padded to the context have the gradients of each slice in a row of its own."""
    batch = copycat().sample(16 if rows == "packed" else 2, 12, np.random.default_rng(0))
    found = []
    for length in (None, 12):
        learner = certain(make(actor, critic, model={"convolution": convolution}))
        prepared = prepare(batch, CPU, length)
        found.append(named_gradients(learner, prepared.slices))
    assert (prepared.slices.segment is not None) == (rows == "packed")
    assert float(prepared.slices.weight.sum()) == prepared.tokens < len(prepared.slices.weight)
    for name, gradient in found[0].items():
        assert torch.allclose(found[1][name], gradient, atol=1e-5, rtol=1e-3), name


def test_operations_are_counted():
    """Against a count by hand: encoder, Transformer and heads, 2 operations a weight, 3 passes with gradients."""
    learner = make()
    batch = copycat().sample(8, 12, np.random.default_rng(0))
    assert learner.flop_utilization(1000.0) == 0.0
    learner.update(batch)
    N, (B, L) = int(batch.mask.sum()), batch.mask.shape
    model, G, E = learner.model, len(LEARNING.discounts), MODEL.critics
    encoder, backbone = (
        sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and n.startswith(part))
        for part in ("encoder", "backbone")
    )
    actor = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("actor"))
    first, later = 32 * 32, 32 * 32 + 32 * 32  # of one critic
    by_hand = 6 * (N + B) * encoder + 6 * B * (L + 1) * backbone
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


def near_the_fixed_point(half, target_rate, updates, monkeypatch, device=CPU):
    """A third of a point in every step, for ever, and gamma = 0.999: values are 333.3, and no action is better.

    A rollout's last timestep has a value that others learn from and nothing is learnt of, and a thousandfold of its
    error ends in all of them. So there is one rollout, a thousand times as long as slices: with a hundred of 40 steps,
    one first network in four ends 25 off, in float32 too. Critics begin at 300. Returns the means of the last 100
    updates: values, and the share that passes the filter.
    """
    monkeypatch.setattr(learner_module, "half_precision", lambda device: half)
    model = dataclasses.replace(
        MODEL, encoder=(8,), width=8, feedforward=8, context=4, head=(16, 16), bins=64, bin_limit=1e3
    )
    learning = dataclasses.replace(
        LEARNING, discounts=(0.999,), rate=1e-3, warmup=100, target_rate=target_rate, reward_multiplier=1.0
    )
    space, rng = gym.spaces.Box(-1, 1, (3,), dtype=np.float32), np.random.default_rng(0)
    learner = Learner(
        AgentModel.seeded(0, model, learning, space, gym.spaces.Discrete(3)), learning, 0, device, context=4
    )
    label = learner.model.bins.labels(torch.tensor(300.0, device=device)).clamp(min=1e-6).log()
    with torch.no_grad():
        for critic in (learner.model.critic, learner.model.target_critic):
            critic.last_bias.copy_(label.expand_as(critic.last_bias))
    replay, steps = Replay(5000, np.zeros(3, np.float32), np.zeros((), np.int64)), 4000
    observations = rng.uniform(-1, 1, size=(steps + 1, 3)).astype(np.float32)
    rewards = np.full(steps, 1 / 3, dtype=np.float32)
    replay.add(Rollout(observations, rng.integers(3, size=steps), rewards, terminated=False))
    totals = Totals()
    for update in range(updates):
        if update == updates - 100:
            totals.read()
        totals.add(learner.update(replay.sample(32, 4, np.random.default_rng(update))))
    numbers = totals.read()
    return numbers["value"], numbers["filter"]


def test_values_reach_the_fixed_point_in_bfloat16(monkeypatch):
    """What a GPU does, here without one. Values rounded to bfloat16 stay at 300, and no action passes the filter."""
    value, share = near_the_fixed_point(True, 1.0, 1500, monkeypatch)
    assert value == pytest.approx(1000 / 3, rel=0.03)
    assert share > 0.1


def test_as_many_actions_pass_the_filter_in_bfloat16(monkeypatch):
    """With values rounded to bfloat16 none pass, in place of 0.41: most actions have the same value."""
    (value, share), (half_value, half_share) = (near_the_fixed_point(h, 0.1, 500, monkeypatch) for h in (False, True))
    assert half_value == pytest.approx(value, rel=0.03)
    assert half_share == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("switches", [False, True])
def test_an_update_never_makes_a_device_wait(actor, critic, kind, switches):
    learner = make(actor, critic, actions=ACTIONS[kind], **switched(switches, actor, critic))
    batch = copycat(continuous=kind == "continuous").sample(8, 12, np.random.default_rng(0))
    learner.update(batch)  # it counts operations, once
    for length in (None, 12):
        slices = prepare(batch, CPU, length).slices
        with NothingWaits() as mode:
            numbers = learner._update(slices)
        assert mode.operations > 100
    with pytest.raises(AssertionError, match="waits for the device"), NothingWaits():
        float(numbers["critic"])


def test_updates_that_are_not_finite_change_no_weight_and_are_told(monkeypatch):
    learner, replay = make(), copycat()
    train(learner, replay, 3)
    before = [p.detach().clone() for p in learner.model.optimized()]
    monkeypatch.setattr(learner.losses, "targets", lambda t: torch.full((len(t.reward), 2), torch.inf))
    totals = Totals()
    totals.add(learner.update(replay.sample(4, 12, np.random.default_rng(0))))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.optimized(), strict=True))
    assert all(state["step"] == 3 for state in learner.optimizer.state.values() if state["exp_avg"].any())
    with pytest.raises(NonFiniteLossError, match="in one of the last 1 updates"):
        totals.read()
