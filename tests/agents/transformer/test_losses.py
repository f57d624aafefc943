"""The settings of the losses, each against the same thing written out."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from mtbench_agents.transformer import losses as losses_module
from mtbench_agents.transformer.heads import CriticEnsemble, DiscretePolicy
from mtbench_agents.transformer.losses import Losses
from mtbench_agents.transformer.model import ActionSpec, AgentModel
from mtbench_agents.transformer.objectives import classification_loss, symlog
from mtbench_agents.transformer.slices import prepare

from .copycat import ACTIONS, COMBINATIONS, CPU, LEARNING, MODEL, copycat, floats, make

GAMMA = torch.tensor(LEARNING.discounts)


def setting(actor="dependent", critic="independent", length=None, **changes):
    learner = make(actor, critic, **changes)
    learner.model.eval()
    batch = copycat().sample(6, 12, np.random.default_rng(0))
    slices = prepare(batch, CPU, length, changes.get("n_step", 1)).slices
    return learner.losses, batch, learner.losses.transitions(slices)


@pytest.mark.parametrize("length", [None, 12])
@pytest.mark.parametrize("n", [1, 3, 20])
def test_n_step_returns(n, length):
    losses, batch, t = setting(length=length, n_step=n)
    model = losses.model
    rewards = torch.from_numpy(batch.rewards) * LEARNING.reward_multiplier
    states = losses.transitions(prepare(batch, CPU).slices)  # one step
    found, at = slice(None) if t.weight is None else t.weight == 1, 0
    reward, discount, following = t.reward[found], t.discount[found], t.next_state[found]
    expected = []
    for i, row in enumerate(batch.mask):
        count = int(row.sum())
        for place in range(count):
            steps = min(n, count - place)
            sums = sum(GAMMA**j * rewards[i, place + 1 + j] for j in range(steps))
            last = at + steps - 1
            gone = bool(batch.terminated[i, place + steps - 1])
            expected.append((sums, torch.zeros(2) if gone else GAMMA**steps, states.next_state[last]))
            at += 1
    if length is not None:  # packed rows have another order
        order = [torch.cdist(following, e[2][None]).argmin().item() for e in expected]
        assert len(order) == len(expected)
        assert sorted(reward.sum(dim=1).tolist()) == pytest.approx(
            sorted(e[0].sum().item() for e in expected), abs=1e-4
        )
        return
    for i, (sums, factor, state) in enumerate(expected):
        assert torch.allclose(reward[i], sums, atol=1e-4)
        assert torch.allclose(discount[i], factor)
        assert torch.allclose(following[i], state, atol=1e-5)
    assert model is losses.model


def values_of_all(losses, critic, state):
    """``(E, N, G, A)``, action by action."""
    each = [torch.full((len(state), 1, 1), a) for a in range(3)]
    return torch.cat([losses.model.raw_to_values(critic(state, action)) for action in each], dim=-1)


def test_dependent_targets_are_exact_expectations():
    losses, _, t = setting()
    with torch.no_grad():
        chances = losses.model.target_actor(t.next_state).probabilities
        values = (values_of_all(losses, losses.model.target_critic, t.next_state) * chances).sum(dim=-1)
        expected = t.reward + t.discount * values.amin(dim=0)  # with 2 critics, both always serve
    assert torch.allclose(losses.targets(t), expected, atol=1e-4)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_critics_judge_what_the_baseline_leaves(share):
    """Both learn one TD target: the baseline all of it, critics what its share leaves, and their sum is the value.

    What is left is left by the baseline itself; the next state's value has the target baseline's part.
    """
    losses, batch, _ = setting("independent", baseline=share)
    model, slices = losses.model, prepare(batch, CPU).slices
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in (model.baseline, model.target_baseline):
            each.out.bias.normal_(generator=drawn)
    t = losses.transitions(slices)
    states = model.embedded(
        model.actions.timesteps(
            slices.observations,
            *(x.flatten(0, 1) if slices.there is None else x.flatten(0, 1)[slices.there] for x in slices[1:4]),
        ),
        slices.steps,
        slices.there,
    )
    at, after = (slices.row, slices.place), (slices.row, slices.place + slices.ahead)
    now, following = (
        share * model.bins.values(each(states[where], slices.steps[where]))
        for each, where in ((model.baseline, at), (model.target_baseline, after))
    )
    assert now.std() > share
    assert torch.allclose(t.next, following, rtol=1e-4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = losses.targets(t)
        torch.manual_seed(0)
        sampled = model.target_actor(t.next_state).sample(1)
    left = model.raw_to_values(model.target_critic(t.next_state, sampled))[..., 0].mean(dim=0)
    assert torch.allclose(found, t.reward + t.discount * (left + following), atol=1e-3)
    parts, numbers = losses.losses(t, found)
    raw = model.critic(t.state, t.action[:, None, None])[..., 0, :]
    rest = classification_loss(raw, model.bins.labels(found - now)).mean()
    whole = classification_loss(model.baseline(states[at], slices.steps[at]), model.bins.labels(found)).mean()
    assert parts["critic"].item() == pytest.approx(rest.item(), rel=1e-4)
    assert parts["baseline"].item() == pytest.approx(whole.item(), rel=1e-4)
    assert numbers["value"].item() == pytest.approx(now[:, -1].mean().item(), abs=0.5)


@pytest.mark.parametrize("critic", ["independent", "dependent"])
def test_short_horizons_count_more_at_the_start(critic):
    """By 1 - discount, 0.9 and 0.1, as long as the warm-up lasts; then alike."""
    losses, _, t = setting("independent", critic, horizon_warmup=7)
    model, targets = losses.model, torch.linspace(-5, 5, len(t))[:, None] * torch.tensor([0.1, 2.0])
    with torch.no_grad():  # as they begin, all bins are about as likely
        model.critic.last_bias.normal_(generator=torch.Generator().manual_seed(0))
    raw = model.critic(t.state, t.action[:, None, None])[..., 0, :]
    if critic == "independent":
        each = classification_loss(raw, model.bins.labels(targets))
    else:
        wanted = model.popart.normalize(targets[..., None])
        each = (model.popart(raw) - wanted).square()[..., 0]
    short, long = each.mean(dim=(0, 1)).tolist()
    assert short != pytest.approx(long, rel=0.01)
    for updates, expected in ((0, 0.9 * short + 0.1 * long), (6, 0.9 * short + 0.1 * long), (7, (short + long) / 2)):
        losses.weigh_horizons(updates)
        assert losses.losses(t, targets)[0]["critic"].item() == pytest.approx(expected, rel=1e-4), updates


@pytest.mark.parametrize("actions", [None, ACTIONS["continuous"]])
@pytest.mark.parametrize("actor_trunk", [True, False])
@pytest.mark.parametrize(("actor", "critic"), COMBINATIONS)
def test_the_actors_loss_trains_the_trunk_if_it_may(actor, critic, actor_trunk, actions):
    learner = make(actor, critic, actions, actor_trunk=actor_trunk, filter_threshold=-1e9)
    batch = copycat(continuous=actions is not None).sample(6, 12, np.random.default_rng(0))
    t = learner.losses.transitions(prepare(batch, CPU).slices)
    parts, _ = learner.losses.losses(t, learner.losses.targets(t))
    parts["actor"].backward()
    model = learner.model
    assert any(p.grad is not None and p.grad.any() for p in model.actor.parameters())
    trunk = [*model.encoder.parameters(), *model.backbone.parameters()]
    assert any(p.grad is not None and p.grad.any() for p in trunk) == actor_trunk


@pytest.mark.parametrize("target", ["by-actor", "mean", "least"])
@pytest.mark.parametrize("actor", ["dependent", "independent"])
def test_what_a_target_takes_of_its_pair(actor, target):
    """Of two critics, the pair is both of them."""
    losses, _, t = setting(actor, target=target)
    values = values_of_all(losses, losses.model.target_critic, t.next_state)
    policy = losses.model.target_actor(t.next_state)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = losses.targets(t)
        torch.manual_seed(0)
        sampled = policy.sample(1)
    if actor == "dependent":
        critics = (values * policy.probabilities).sum(dim=-1)
    else:
        critics = values.gather(-1, sampled.expand(*values.shape[:-1], 1))[..., 0]
    least = target == "least" or (target == "by-actor" and actor == "dependent")
    expected = t.reward + t.discount * (critics.amin(dim=0) if least else critics.mean(dim=0))
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("least", "by_action"), [("of-expectations", False), ("by-action", True)])
def test_what_the_dependent_actors_minimum_is_of(least, by_action):
    losses, _, t = setting(least=least)
    with torch.no_grad():
        critic = losses.model.critic
        critic.last[1] = -critic.last[1] * 3  # the critics disagree
        chances = losses.model.actor(t.state).probabilities
        values = losses.model.popart.normalize(values_of_all(losses, critic, t.state))
        value = (values.amin(0) * chances).sum(-1) if by_action else (values * chances).sum(-1).amin(0)
        other = (values * chances).sum(-1).amin(0) if by_action else (values.amin(0) * chances).sum(-1)
    actor = losses.losses(t, losses.targets(t))[0]["actor"].item()
    assert actor == pytest.approx(-value.mean().item(), rel=1e-4)
    assert actor != pytest.approx(-other.mean().item(), rel=1e-4)


def test_the_exact_filter_is_the_limit_of_many_samples():
    found = []
    for changes in ({"exact_actions": 100}, {"value_samples": 400}, {"value_samples": 400, "shared_samples": True}):
        losses, _, t = setting("independent", **changes)
        with torch.no_grad():
            losses.model.critic.last.mul_(30.0)
            _, shares, values = losses._own_actions(t, losses.model.actor(t.state))
            found.append((values * shares).sum(dim=-1))
    spread = found[0].std()
    assert (found[1] - found[0]).abs().mean() < 0.1 * spread
    assert (found[2] - found[0]).abs().mean() < 0.1 * spread


@pytest.mark.parametrize(("count", "samples"), [(1, 1), (2, 3), (5, 2), (6, 2)])
def test_the_likeliest_actions_count_exactly_and_samples_for_the_others(count, samples):
    """The estimate's mean is the exact value; it varies less than one without exact actions."""
    chances = torch.softmax(3 * torch.randn(20, 1, 8), dim=-1)
    values = torch.randn(20, 1, 8)
    exact = (chances * values).sum(-1)
    policy = DiscretePolicy(chances.repeat(500, 1, 1))
    actions, shares = losses_module._likeliest(policy, count, samples)
    if count + samples >= 8:
        assert actions is None
        assert torch.equal(shares, policy.probabilities)
        return
    found = (values.repeat(500, 1, 1).gather(-1, actions) * shares).sum(-1).view(500, 20)
    plain = values.repeat(500, 1, 1).gather(-1, policy.sample(1))[..., 0].view(500, 20)
    error = (found.mean(dim=0) - exact[:, 0]) / (found.std(dim=0) / 500**0.5 + 1e-6)
    assert error.abs().max() < 4
    assert (found.std(dim=0) < plain.std(dim=0)).all()
    likeliest = chances[:, 0].topk(count).indices.sort(dim=-1).values
    assert torch.equal(actions[:20, 0, :count].sort(dim=-1).values, likeliest)


def test_shared_samples_are_judged_by_all_critics(monkeypatch):
    seen = []
    losses, _, t = setting("independent", shared_samples=True, value_samples=5)
    monkeypatch.setattr(
        CriticEnsemble, "forward", lambda self, state, action: seen.append(action) or original(self, state, action)
    )
    losses._own_actions(t, losses.model.actor(t.state))
    assert [tuple(action.shape) for action in seen] == [(len(t), 2, 5)]


original = CriticEnsemble.forward


def test_a_threshold_on_the_scale_of_returns():
    shares = []
    for changes in ({"filter_threshold": 0.5}, {"filter_threshold": 0.05, "filter_scale": "returns"}, {}):
        losses, _, t = setting("independent", exact_actions=100, **changes)
        with torch.no_grad():
            losses.model.critic.last.mul_(30.0)
        shares.append(losses.losses(t, losses.targets(t))[1]["filter"].item())
    assert shares[0] == shares[1] < shares[2]
    assert shares[0] > 0


@pytest.mark.parametrize("doubt", [0.0, 1.0])
def test_what_critics_doubt_is_not_imitated(doubt):
    losses, _, t = setting("independent", exact_actions=100, filter_doubt=doubt)
    with torch.no_grad():
        losses.model.critic.last.mul_(30.0)
        values, chances = values_of_all(losses, losses.model.critic, t.state), losses.model.actor(t.state).probabilities
        taken = values.gather(-1, t.action[None, :, None, None].expand(*values.shape[:3], 1))[..., 0]
        advantages = taken - (values * chances).sum(dim=-1)
        least = torch.minimum(*advantages) if doubt else advantages.mean(dim=0)  # of two: mean minus half the gap
    share = losses.losses(t, losses.targets(t))[1]["filter"].item()
    assert share == pytest.approx((least > 0).float().mean().item())
    assert 0 < share < 0.6


@pytest.mark.parametrize("exact", [2, 100])
def test_own_actions_climb_the_chance_of_passing_the_filter(exact):
    """With three actions, two of them exact and one a sample of the others, which is the third, all are judged."""
    gradients = []
    for weight in (0.0, 0.7):
        losses, _, t = setting("independent", exact_actions=exact, own_actions=weight)
        with torch.no_grad():
            losses.model.critic.last.mul_(30.0)
            losses.model.actor.out.weight.mul_(150.0)
        state = t.state.detach().requires_grad_()
        parts, _ = losses.losses(dataclasses.replace(t, state=state), losses.targets(t))
        gradients.append(torch.autograd.grad(parts["actor"], state)[0])
        policy = losses.model.actor(state).probabilities
        values = values_of_all(losses, losses.model.critic, state.detach()).detach()
        better = (values - (values * policy.detach()).sum(dim=-1, keepdim=True)).mean(dim=0) > 0
        passing = (policy * better).sum(dim=-1).mean()
    assert policy.std(dim=1).mean() > 0.1
    expected = torch.autograd.grad(-0.7 * passing, state)[0]
    assert torch.allclose(gradients[1] - gradients[0], expected, atol=1e-6)
    assert expected.abs().max() > 1e-4


def test_targets_beyond_the_bins_are_counted():
    losses, _, t = setting("independent")
    limit = losses.model.bins.centers[-1].expm1().item()
    targets = torch.zeros(len(t), 2)
    targets[:3] = limit * 1.1
    numbers = losses.losses(t, targets)[1]
    assert numbers["clipped"].item() == pytest.approx(3 / len(t))


def test_probabilities_have_a_ceiling():
    policy = DiscretePolicy.from_logits(torch.tensor([[20.0, 0.0, 0.0]]), (1e-3, 0.99))
    assert policy.probabilities.tolist() == [pytest.approx([0.99 / 0.992, 1e-3 / 0.992, 1e-3 / 0.992])]


def test_the_critics_second_layer_can_be_normalized():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain, normed = (CriticEnsemble(6, (8, 7), (0.5, 0.9), 3, True, 5, 2, norm) for norm in (False, True))
        normed.load_state_dict(plain.state_dict(), strict=False)
        state = torch.randn(4, 6)
    raw = normed(state, None)
    with torch.no_grad():
        normed.second *= 100.0
        normed.second_bias *= 100.0
    assert torch.allclose(normed(state, None), raw, atol=1e-3), "the size of the layer before does not matter"
    with torch.no_grad():
        normed.norm_scale[1] = 0.0
    assert torch.equal(normed(state, None)[1], normed.last_bias[1].expand(4, 2, 3, 5))
    assert torch.allclose(normed(state, None)[0], raw[0], atol=1e-3), "each critic has its own"


def test_inputs_by_their_symlog():
    space = gym.spaces.Box(-1, 1, (2,), dtype=np.float32)
    action, reward = torch.tensor([[0.5, -0.5], [1.0, 1.0]]), torch.tensor([3.0, -400.0])
    plain, squashed = (
        ActionSpec(space, how).timesteps(action, action, reward, torch.tensor([4, 0])) for how in (False, True)
    )
    assert torch.allclose(squashed.previous_reward, symlog(reward))
    assert torch.allclose(squashed.previous_action, symlog(plain.previous_action))
    assert plain.previous_action[1].tolist() == [0.0, 0.0], "the first of its rollout"


def test_poparts_layer_is_the_optimizers_only_if_asked():
    for learned in (False, True):
        model = AgentModel.seeded(
            0,
            MODEL,
            dataclasses.replace(LEARNING, popart_learned=learned),
            gym.spaces.Box(-1, 1, (2,)),
            gym.spaces.Discrete(2),
        )
        assert any(p is model.popart.scale for p in model.optimized()) == learned
        assert "popart.scale" in model.state_dict()


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("actor", ["independent", "dependent"])
def test_all_other_settings_at_once_learn(kind, actor):
    """Together they run, and the losses fall."""
    changes = {
        "n_step": 3,
        "pairs": "discount",
        "shared_samples": True,
        "exact_expectations": False,
        "least": "by-action",
    }
    changes |= {"exact_actions": 100, "filter_scale": "returns", "popart_learned": True}
    model = {"critic_norm": True, "input_limit": 1e4, "encoder_norm": True, "symlog_inputs": True}
    learner = make(actor, "independent", actions=ACTIONS[kind], model=model | {"probability_ceiling": 0.99}, **changes)
    replay = copycat(continuous=kind == "continuous")
    numbers = [floats(learner.update(replay.sample(16, 12, np.random.default_rng(u)))) for u in range(60)]
    assert np.mean([n["critic"] for n in numbers[-10:]]) < 0.9 * numbers[0]["critic"]
    assert isinstance(learner.losses, Losses)
