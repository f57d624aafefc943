"""Each loss against a slow, obvious version of itself."""

import math

import numpy as np
import pytest
import torch
from mtbench_agents.transformer import objectives as obj

VALUES = torch.tensor([-2e5, -1e5, -321.0, -1.0, -1e-3, 0.0, 0.2, 1.0, 7.7, 4321.0, 1e5, 9e9])


def test_symexp_undoes_symlog():
    assert torch.allclose(obj.symexp(obj.symlog(VALUES.double())), VALUES.double())
    assert obj.symlog(torch.tensor(math.e - 1)).item() == pytest.approx(1.0)


def slow_two_hot(value, centers):
    """Weights on the two nearest bins, each in proportion to the distance from the other one."""
    y = float(np.clip(np.sign(value) * np.log1p(abs(value)), centers[0], centers[-1]))
    weights = np.zeros(len(centers))
    above = int(np.searchsorted(centers, y))
    if above == 0 or math.isclose(centers[above], y, abs_tol=1e-9):
        weights[above] = 1.0
        return weights
    low, high = centers[above - 1], centers[above]
    weights[above - 1], weights[above] = (high - y) / (high - low), (y - low) / (high - low)
    return weights


@pytest.mark.parametrize("count", [2, 7, 64, 129])
def test_two_hot_labels(count):
    bins = obj.ValueBins(1e5, count)
    ours = bins.labels(VALUES)
    slow = np.stack([slow_two_hot(float(v), bins.centers.double().numpy()) for v in VALUES])
    np.testing.assert_allclose(ours.numpy(), slow, atol=2e-5)
    assert torch.allclose(ours.sum(-1), torch.ones(len(VALUES)))
    assert ((ours > 0).sum(-1) <= 2).all()


@pytest.mark.parametrize("smoothing", [None, 0.75])
def test_labels_lead_back_to_their_values(smoothing):
    bins = obj.ValueBins(1e5, 128, smoothing)
    inside = VALUES[2:-2]
    back = bins.values(bins.labels(inside).clamp(min=1e-30).log())
    assert torch.allclose(back, inside, rtol=2e-3, atol=2e-3)


def test_hl_gauss_spreads_over_more_bins():
    labels = obj.ValueBins(1e5, 64, 0.75).labels(torch.tensor([3.0]))
    assert ((labels > 1e-4).sum(-1) > 3).all()
    assert labels.sum().item() == pytest.approx(1.0)


def test_bins_need_a_limit():
    with pytest.raises(ValueError, match="limit above 0 and at least 2 bins"):
        obj.ValueBins(-1, 8)


def test_values_beyond_the_bins_are_told():
    values = torch.tensor([-101.0, -99.0, 0.0, 99.0, 101.0])
    assert obj.ValueBins(100, 8).outside(values).tolist() == [True, False, False, False, True]


def test_weighted_means_leave_out_what_does_not_exist():
    values = torch.tensor([[1.0, 3.0], [50.0, 70.0], [5.0, 7.0]])
    assert obj.weighted_mean(values, torch.tensor([1.0, 0.0, 1.0])).item() == 4.0


def test_classification_loss_is_cross_entropy():
    logits, labels = torch.randn(5, 3, 9), torch.rand(5, 3, 9).softmax(-1)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1), reduction="none")
    assert torch.allclose(obj.classification_loss(logits, labels).flatten(), expected, atol=1e-6)


def test_the_classification_loss_does_not_see_the_scale():
    """Figure 3: the same relative error costs about the same at every scale, unlike the squared error."""
    bins = obj.ValueBins(1e5, 128)
    losses = []
    for scale in (10.0, 100.0, 1000.0, 10_000.0):
        prediction, target = torch.tensor([1.5 * scale]), torch.tensor([scale])
        logits = (bins.labels(prediction) + 1e-2).log()
        losses.append(obj.classification_loss(logits, bins.labels(target)).item())
    assert max(losses) / min(losses) < 1.6


def test_a_random_pair_for_each_timestep():
    values = torch.arange(4.0)[:, None, None].expand(4, 2000, 3)
    pair = obj.random_pair(values)
    assert pair.shape == (2, 2000, 3)
    assert (pair == pair[..., :1]).all(), "one pair serves a timestep's discounts"
    assert (pair[0] != pair[1]).all()
    # Of the 6 pairs of {0, 1, 2, 3} the least is 0 in three, 1 in two, 2 in one.
    counts = torch.bincount(pair.amin(0)[:, 0].long(), minlength=4) / 2000
    assert torch.allclose(counts, torch.tensor([3.0, 2, 1, 0]) / 6, atol=0.05)


def test_a_random_pair_for_each_discount():
    values = torch.arange(4.0)[:, None, None].expand(4, 3000, 3)
    pair = obj.random_pair(values, by_discount=True)
    assert (pair[0] == pair[1]).float().mean().item() == pytest.approx(0.25, abs=0.03), "with replacement"
    assert (pair[0, :, 0] == pair[0, :, 1]).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.allclose(torch.bincount(pair.flatten().long()) / 18_000, torch.full((4,), 0.25), atol=0.02)


def test_small_ensembles():
    values = torch.randn(2, 7, 3)
    pair = obj.random_pair(values)
    assert torch.equal(pair.amin(0), values.amin(0))
    assert torch.allclose(pair.mean(0), values.mean(0))
    assert torch.equal(obj.random_pair(values[:1]), values[:1])


def test_the_filter_keeps_better_actions_only():
    log_prob = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    loss = obj.filtered_imitation_loss(log_prob, torch.tensor([0.5, 0.0, -0.5]))
    assert loss.tolist() == [1.0, 0.0, 0.0]
    loss.sum().backward()
    assert log_prob.grad.tolist() == [-1.0, 0.0, 0.0]


def test_the_filter_does_not_see_the_scale():
    log_prob, advantage = torch.randn(50), torch.randn(50)
    small, large = (obj.filtered_imitation_loss(log_prob, advantage * scale) for scale in (1e-3, 1e3))
    assert torch.equal(small, large)


def test_expected_value_loss():
    probabilities, values = torch.rand(6, 4).softmax(-1), torch.randn(6, 4)
    expected = [-sum(p * v for p, v in zip(ps, vs, strict=True)) for ps, vs in zip(probabilities, values, strict=True)]
    assert torch.allclose(obj.expected_value_loss(probabilities, values), torch.stack(expected))


# ---- PopArt ----


def outputs(popart, raw):
    return popart.denormalize(popart(raw))


def test_popart_preserves_outputs():
    popart = obj.PopArt(3)
    raw = torch.randn(11, 3, 1)
    popart.update(torch.randn(50, 3) * 10 + 4)
    for scale in (1.0, 100.0, 0.01):
        before = outputs(popart, raw)
        popart.update(torch.randn(50, 3) * scale + scale)
        assert torch.allclose(outputs(popart, raw), before, rtol=1e-4, atol=1e-4)


def test_popart_normalizes():
    popart = obj.PopArt(2, rate=0.01)
    for _ in range(1500):
        targets = torch.randn(256, 2) * torch.tensor([3.0, 500.0]) + torch.tensor([7.0, -900.0])
        popart.update(targets)
    normalized = popart.normalize(targets[..., None])
    assert normalized.mean(0).abs().max() < 0.3
    assert (normalized.std(0) - 1).abs().max() < 0.2
    assert torch.allclose(popart.denormalize(normalized)[..., 0], targets, rtol=1e-3, atol=1e-2)
