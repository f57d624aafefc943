"""The short convolution against PyTorch's own, and what it remembers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mtbench_agents.transformer.convolution import Convolution, Recent

CPU = torch.device("cpu")


def fresh(width=6, count=3):
    """A layer as it begins, and what it takes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Convolution(width, count), torch.randn(2, 9, width)


def made():
    """The same with weights in every dimension."""
    layer, x = fresh()
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    return layer, x


def convolved(layer, x_BTD):
    """PyTorch's convolution, by dimension, with weight 1 for the timestep itself, which comes last there."""
    weight = torch.cat([torch.ones(1, x_BTD.shape[2]), layer.weight]).flip(0).T[:, None]
    padded = F.pad(x_BTD.transpose(1, 2), (layer.count, 0))
    return F.conv1d(padded, weight, groups=x_BTD.shape[2]).transpose(1, 2)


def test_at_the_start_half_of_the_dimensions_see_their_own_timestep_alone():
    layer, x = fresh()
    mixed = layer(x)
    assert torch.equal(mixed[..., 3:], x[..., 3:])
    assert (mixed[:, 1:, :3] != x[:, 1:, :3]).all()


@pytest.mark.parametrize("length", [1, 2, 4, 9])
def test_it_is_a_causal_convolution_of_each_dimension(length):
    layer, x = made()
    torch.testing.assert_close(layer(x[:, :length]), convolved(layer, x[:, :length]))


def test_sequences_in_one_row_do_not_mix():
    layer, x = made()
    segment = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1], [2, 3, 3, 3, 3, 3, 3, -1, -1]])
    mixed = layer(x, segment)
    for row, begin, end in ((0, 0, 4), (0, 4, 9), (1, 0, 1), (1, 1, 7)):
        torch.testing.assert_close(mixed[row : row + 1, begin:end], convolved(layer, x[row : row + 1, begin:end]))


@torch.no_grad()
def test_step_by_step_it_is_the_same_across_restarts_parts_and_checkpoints():
    """Two environments, the second restarted after 4 steps; from step 6 on each is a part of a restored memory."""
    layer, x = made()
    recent, steps = Recent(2, layer.count, 6, CPU), torch.tensor([0, 0])
    wanted = convolved(layer, x[:1])[0], torch.cat([convolved(layer, x[1:, :4])[0], convolved(layer, x[1:, 4:])[0]])
    for t in range(9):
        if t == 4:
            steps[1] = 0
        if t < 6:
            mixed = layer.step(x[:, t], steps, recent)
        else:
            parts = recent.part(slice(0, 1)), recent.part(slice(1, 2))
            mixed = torch.cat([layer.step(x[i : i + 1, t], steps[i : i + 1], part) for i, part in enumerate(parts)])
        torch.testing.assert_close(mixed, torch.stack([one[t] for one in wanted]))
        steps += 1
        if t == 5:
            saved = recent.state()
            assert saved["recent"].shape == (2, 3, 6)
            assert saved["recent"].dtype == np.float32
            recent = Recent(2, layer.count, 6, CPU)
            recent.load_state(saved)


def test_a_checkpoint_of_another_size_is_refused():
    with pytest.raises(RuntimeError, match="size"):
        Recent(2, 3, 6, CPU).load_state({"recent": np.zeros((2, 4, 6), np.float32)})
