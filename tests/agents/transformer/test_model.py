"""The network: cached and full forward agree, and gradients go where they should."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from mtbench_agents.transformer.backbone import Backbone, SigmaReparamLinear, sinusoids
from mtbench_agents.transformer.config import LearningConfig, ModelConfig
from mtbench_agents.transformer.encoders.base import InputNorm, Timesteps
from mtbench_agents.transformer.heads import CriticEnsemble, DiscretePolicy, GaussianPolicy
from mtbench_agents.transformer.model import AgentModel
from torch import nn

from mtbench.errors import UsageError

SMALL = ModelConfig(
    encoder=(24,), width=16, feedforward=32, layers=2, heads=4, context=6, head=(20, 12), critics=3, bins=16
)
LEARNING = LearningConfig(discounts=(0.5, 0.9, 0.99))
VECTOR = gym.spaces.Box(-1, 1, (5,), dtype=np.float32)


def make(actions=None, **learning):
    return AgentModel(SMALL, dataclasses.replace(LEARNING, **learning), VECTOR, actions or gym.spaces.Discrete(4))


def random_timesteps(B, T, actions=4):
    return Timesteps(
        observation=torch.randn(B, T, 5),
        previous_action=torch.randn(B, T, actions),
        previous_reward=torch.randn(B, T),
        start=(torch.arange(T) == 0).float().expand(B, T),
    )


def at(timesteps, rows, t):
    parts = (getattr(timesteps, field.name) for field in dataclasses.fields(timesteps))
    return Timesteps(*(part[rows, t] for part in parts if part is not None))


# ---- backbone ----


def states(model, timesteps, steps, window=None):
    return model.backbone(model.embedded(timesteps, steps), steps, window)


def placed(convolution):
    """In evaluation; what a convolution puts out is normalized."""
    model = dataclasses.replace(SMALL, convolution=convolution, encoder_norm=convolution > 0)
    return AgentModel(model, LEARNING, VECTOR, gym.spaces.Discrete(4)).eval()


@pytest.mark.parametrize("convolution", [0, 3])
@pytest.mark.parametrize("tensors", [True, False])
def test_cached_rollout_equals_full_forward_with_staggered_resets_beyond_the_context(tensors, convolution):
    """Rollouts of 3 to 17 steps restart at different times in 4 environments whose cache holds 6 timesteps."""
    lengths = [[17, 5], [3, 9, 8], [11, 11], [6, 6, 6]]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = placed(convolution)
        rollouts = [[random_timesteps(1, length) for length in row] for row in lengths]
    memory = model.backbone.new_memory(4, torch.device("cpu"), tensors=tensors)
    full = [
        [states(model, r, torch.arange(r.start.shape[1])[None], window=SMALL.context) for r in row] for row in rollouts
    ]
    place = [[0, 0] for _ in lengths]  # rollout, step
    for _ in range(18):
        steps = [at(rollouts[i][r], 0, t) for i, (r, t) in enumerate(place)]
        fields = [field.name for field in dataclasses.fields(Timesteps) if field.name != "sequence"]
        now = Timesteps(*(torch.stack([getattr(step, name) for step in steps]) for name in fields))
        with torch.no_grad():
            at_steps = torch.tensor([t for _, t in place])
            used = min(max(at_steps) + 1, memory.window)
            state = model.backbone.step(model.encoder(now), at_steps, memory, used)
        for i, (r, t) in enumerate(place):
            assert torch.allclose(state[i], full[i][r][0, t], atol=1e-5 if tensors else 1e-4)  # a CPU's rounds
            place[i] = [r, t + 1] if t + 1 < lengths[i][r] else [(r + 1) % len(lengths[i]), 0]


def test_within_the_context_the_window_changes_nothing():
    model = make().eval()
    timesteps = random_timesteps(3, SMALL.context)
    steps = torch.arange(SMALL.context).expand(3, -1)
    assert torch.allclose(
        states(model, timesteps, steps), states(model, timesteps, steps, window=SMALL.context), atol=1e-5
    )


@pytest.mark.parametrize("convolution", [0, 3])
def test_no_timestep_sees_the_future(convolution):
    model = placed(convolution)
    timesteps = random_timesteps(1, 8)
    steps = torch.arange(8)[None]
    before = states(model, timesteps, steps)
    timesteps.observation[:, 5:] += 10.0
    after = states(model, timesteps, steps)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_sigma_reparam_has_the_spectral_norm_it_learned():
    layer = SigmaReparamLinear(12, 7)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(7, 12) * 3)
        layer.gamma.fill_(1.7)
    for _ in range(200):
        layer.update_norm()
    with torch.no_grad():
        layer.bias.zero_()
        effective = layer(torch.eye(12)).T
    assert torch.linalg.matrix_norm(effective, 2).item() == pytest.approx(1.7, rel=1e-3)


def test_sigma_reparam_starts_exact_and_holds_still_in_evaluation():
    layer = SigmaReparamLinear(9, 9).eval()
    with torch.no_grad():
        assert torch.linalg.matrix_norm(layer(torch.eye(9)).T, 2).item() == pytest.approx(1.0, rel=1e-4)
    left = layer.left.clone()
    layer(torch.randn(2, 9))
    assert torch.equal(left, layer.left)


def test_a_folded_layer_is_the_same_layer():
    layer = SigmaReparamLinear(9, 5)
    x = torch.randn(3, 9)
    before = layer(x)
    layer.fold()
    assert torch.allclose(layer(x), before, atol=1e-6)


def test_recomputed_activations_have_the_same_gradients():
    timesteps, steps = random_timesteps(3, 6), torch.arange(6).expand(3, -1)
    gradients = []
    for recompute in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = AgentModel(
                dataclasses.replace(SMALL, recompute=recompute), LEARNING, VECTOR, gym.spaces.Discrete(4)
            )
            states(model, timesteps, steps).square().sum().backward()  # with dropout
        gradients.append([p.grad for p in model.backbone.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


def test_positions_are_vaswanis():
    table = sinusoids(torch.tensor([0, 1, 900]), 8)
    for row, step in zip(table, (0, 1, 900), strict=True):
        for i in range(4):
            angle = step / 10_000 ** (2 * i / 8)
            assert row[2 * i].item() == pytest.approx(np.sin(angle), abs=1e-4)
            assert row[2 * i + 1].item() == pytest.approx(np.cos(angle), abs=1e-4)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of 3 heads"):
        Backbone(16, 32, 1, 3, 8, 0.0)


# ---- inputs ----


def test_input_statistics_are_bias_corrected_and_masked():
    norm = InputNorm(3, rate=0.01)
    shift, scale = torch.tensor([5.0, -3.0, 2.0]), torch.tensor([4.0, 0.5, 0.0])
    for _ in range(400):
        x = torch.randn(8, 30, 3) * scale + shift
        mask = torch.rand(8, 30) > 0.3
        norm.observe(torch.where(mask[..., None], x, 1e4), mask)
    y = norm(torch.randn(500, 3) * scale + shift)
    assert y[:, :2].mean(0).abs().max() < 0.25
    assert (y[:, :2].std(0) - 1).abs().max() < 0.2
    assert torch.equal(y[:, 2], torch.full((500,), 2.0)), "a constant input passes unchanged"


def test_one_observation_is_enough_for_the_mean():
    norm = InputNorm(1)
    norm.observe(torch.tensor([[4.0], [6.0]]), torch.ones(2, dtype=torch.bool))
    assert norm(torch.tensor([[5.0]])).item() == pytest.approx(0.0, abs=1e-4)
    assert norm(torch.tensor([[6.0]])).item() == pytest.approx(1.0, abs=1e-3)


def test_unbounded_actions_are_refused():
    with pytest.raises(UsageError, match="Discrete or bounded"):
        make(gym.spaces.Box(-np.inf, np.inf, (2,)))


# ---- heads ----


def slow_critic(critic, e, state, gamma_feature, action):
    """One value by one critic, with the inputs joined as the paper draws it."""
    joined = torch.cat([state, gamma_feature, action])
    from_state = critic.from_state[e]
    if critic.gates is not None:
        from_state = from_state * (1 + action @ critic.gates[e])
    first = torch.cat([from_state, critic.from_discount[e], critic.from_action[e]])
    hidden = nn.functional.leaky_relu(joined @ first + critic.first_bias[e, 0])
    hidden = nn.functional.leaky_relu(hidden @ critic.second[e] + critic.second_bias[e, 0])
    return hidden @ critic.last[e] + critic.last_bias[e, 0]


@pytest.mark.parametrize("gates", [True, False])
@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("per_discount", [True, False])
def test_the_split_first_layer_equals_joined_inputs(discrete, per_discount, gates):
    critic = CriticEnsemble(6, (8, 7), (0.5, 0.9), 3, discrete, 5, 2, gates=gates)
    G = 2 if per_discount else 1
    action = torch.randint(3, (4, G, 3)) if discrete else torch.rand(4, G, 3, 3)
    state = torch.randn(4, 6)
    values = critic(state, action)
    assert values.shape == (2, 4, 2, 3, 5)
    for e in range(2):
        for n in range(4):
            for g in range(2):
                for s in range(3):
                    a = action[n, g if per_discount else 0, s]
                    vector = nn.functional.one_hot(a, 3).float() if discrete else a
                    slow = slow_critic(critic, e, state[n], critic.discount_features[g], vector)
                    assert torch.allclose(values[e, n, g, s], slow, atol=1e-5)


@pytest.mark.parametrize("discrete", [True, False])
def test_every_critic_may_judge_actions_of_its_own(discrete):
    critic = CriticEnsemble(6, (8, 7), (0.5, 0.9), 3, discrete, 5, 2)
    state = torch.randn(4, 6)
    own = torch.randint(3, (2, 4, 2, 3)) if discrete else torch.rand(2, 4, 2, 3, 3)
    values = critic(state, own)
    for e in range(2):
        assert torch.allclose(values[e], critic(state, own[e])[e], atol=1e-6)


def test_all_actions_at_once_equal_each_in_turn():
    critic = CriticEnsemble(6, (8, 7), (0.5, 0.9), 3, True, 5, 2)
    state = torch.randn(4, 6)
    each = torch.arange(3).expand(4, 2, 3)
    assert torch.allclose(critic(state, None), critic(state, each), atol=1e-6)


@pytest.mark.parametrize("own", [False, True])
def test_a_gpus_way_to_a_discrete_action_is_that_of_a_cpu(own):
    """Products with one-hot actions, and lookups; E critics judge the same actions, or each its own."""
    critic = CriticEnsemble(6, (8, 7), (0.5, 0.9), 3, True, 5, 2)
    action = torch.randint(3, ((2,) if own else ()) + (4, 2, 5), generator=torch.Generator().manual_seed(0))
    one_hot = (action[..., None] == torch.arange(3)).float()
    ways = critic._looked_up(action, critic.from_action[:, None]), critic._multiplied(one_hot, critic.from_action)
    assert torch.allclose(*ways, atol=1e-6)
    weights = torch.randn(ways[0].shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((way * weights).sum(), critic.from_action)[0] for way in ways]
    assert torch.allclose(*gradients, atol=1e-5)


def test_discrete_policies_sample_what_they_say():
    policy = DiscretePolicy.from_logits(torch.tensor([[[2.0, 0.0, -40.0]]]), (0.01, 1.0))
    assert policy.probabilities.sum().item() == pytest.approx(1.0)
    assert policy.probabilities.min() > 0.009
    many = DiscretePolicy(policy.probabilities.expand(20_000, 1, 3))
    drawn = many.sample(2)
    assert drawn.shape == (20_000, 1, 2)
    counts = torch.bincount(drawn.flatten(), minlength=3) / 40_000
    assert torch.allclose(counts, policy.probabilities[0, 0], atol=0.015)
    assert torch.allclose(policy.log_prob(torch.tensor([[1]])).exp(), policy.probabilities[..., 1])


def test_gaussian_log_probabilities_are_scipys():
    from scipy import stats

    policy = GaussianPolicy(torch.tensor([[[0.3, -0.2]]]), torch.tensor([[[-0.5, 0.1]]]))
    action = torch.tensor([[[0.4, -0.6]]])
    before = np.arctanh(action.numpy())
    density = stats.norm(policy.mean.numpy(), np.exp(policy.log_std.numpy())).logpdf(before)
    expected = (density - np.log(1 - action.numpy() ** 2)).sum(-1)
    assert policy.log_prob(action).numpy() == pytest.approx(expected, abs=1e-5)


def test_gaussian_samples_pass_gradients_and_stay_inside():
    parameters = torch.randn(200, 2, 6, requires_grad=True)
    policy = GaussianPolicy.from_parameters(parameters)
    sample = policy.sample(4)
    assert sample.shape == (200, 2, 4, 3)
    assert sample.abs().max() <= 1
    sample.sum().backward()
    assert parameters.grad.abs().sum() > 0
    assert policy.log_std.min() >= -5
    assert policy.log_std.max() <= 2


def test_targets_start_equal_follow_slowly_and_get_no_gradient():
    model = make()
    with torch.no_grad():
        for parameter in model.critic.parameters():
            parameter.add_(1.0)
    before = model.target_critic.second.clone()
    model.update_targets(0.1)
    expected = before + 0.1 * (model.critic.second - before)
    assert torch.allclose(model.target_critic.second, expected)
    assert not any(p.requires_grad for p in [*model.target_actor.parameters(), *model.target_critic.parameters()])
    assert not {id(p) for p in model.target_critic.parameters()} & {id(p) for p in model.optimized()}
