"""Attention to a rollout's memory on a CPU, beside PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from mtbench_agents.transformer import cpu_attention


@pytest.mark.parametrize("slopes", [[0.0, 0.0], [0.5, 0.01]])
@pytest.mark.parametrize("head_dim", [1, 8, 12, 16])
def test_it_is_attention_to_the_slots_in_use(head_dim, slopes):
    """Rows of different lengths; heads whose size is no multiple of what the kernels add at once."""
    B, heads, window = 5, 2, 21
    lengths = torch.tensor([1, 7, 8, 20, 21])
    slots = torch.tensor([0, 6, 2, 19, 11])  # the third and the last row overwrite an old slot
    keys, values = torch.randn(B, heads, head_dim, window).transpose(-1, -2), torch.randn(B, heads, window, head_dim)
    query, key, value = (torch.randn(B, heads, head_dim) for _ in range(3))
    wanted_keys, wanted_values = keys.clone(), values.clone()
    for row, slot in enumerate(slots):
        wanted_keys[row, :, slot], wanted_values[row, :, slot] = key[row], value[row]
    slopes = torch.tensor(slopes)
    age = (slots[:, None] - torch.arange(window)) % window
    seen = -slopes[:, None, None] * age[:, None, None]
    seen = seen.masked_fill(~(torch.arange(window) < lengths[:, None])[:, None, None], -torch.inf)
    wanted = F.scaled_dot_product_attention(query[:, :, None], wanted_keys, wanted_values, attn_mask=seen)[:, :, 0]

    scratch = torch.full((B, heads, window), torch.nan)
    mixed = cpu_attention.attend(query, key, value, keys, values, slots, lengths, slopes, scratch)

    assert torch.equal(keys, wanted_keys)
    assert torch.equal(values, wanted_values)
    torch.testing.assert_close(mixed, wanted)


@pytest.mark.parametrize("available", [True, False])
def test_memory_begins_as_zeros_with_and_without_large_pages(available, monkeypatch):
    if not available:
        monkeypatch.delattr(cpu_attention.mmap, "MADV_HUGEPAGE", raising=False)
    memory = cpu_attention.zeros(2, 3, 700_000)
    assert memory.dtype == torch.float32
    assert memory.shape == (2, 3, 700_000)
    assert not memory.any()
    memory += 1
    assert memory.sum() == memory.numel()
