"""A CPU's memory of rollouts, and attention to it, beside PyTorch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mtbench_agents.transformer import cpu_cache
from mtbench_agents.transformer.cache import TensorCache
from mtbench_agents.transformer.cpu_cache import CpuCache

CPU = torch.device("cpu")


def state(rng, layers=1, rows=5, heads=2, steps=21, head_dim=16):
    """Of a cache, with timesteps of very different sizes."""
    size = 10 ** rng.uniform(-3, 3, (layers, rows, heads, steps, 1))
    shape = layers, rows, heads, steps, head_dim
    return {name: (size * rng.normal(size=shape)).astype(np.float32) for name in ("keys", "values")}


@pytest.mark.parametrize("window", [21, 32, 70])
@pytest.mark.parametrize("head_dim", [1, 8, 12, 16])
def test_it_is_attention_to_the_slots_in_use(head_dim, window):
    """Rows of different lengths, of which two overwrite an old slot; heads and windows that fill no block."""
    rng, heads = np.random.default_rng(0), 2
    cache = CpuCache(2, 5, heads, window, head_dim)
    held = state(rng, 2, 5, heads, window, head_dim)
    for array in held.values():
        array /= np.abs(array).max(axis=-1, keepdims=True)
    cache.load_state(held)
    steps = torch.tensor([0, 6, window + 2, window - 2, 2 * window - 1])
    query, key, value = (torch.from_numpy(rng.normal(size=(5, heads, head_dim)).astype(np.float32)) for _ in range(3))
    mixed = cache.attend(1, (query, key, value), cache.places(steps, window))

    keys, values = (torch.from_numpy(rounded(held[name][1])) for name in ("keys", "values"))
    new_key, new_value = (torch.from_numpy(rounded(new.numpy())) for new in (key, value))
    slots, lengths = steps % window, (steps + 1).clamp(max=window)
    for row, slot in enumerate(slots):
        keys[row, :, slot], values[row, :, slot] = new_key[row], new_value[row]
    seen = (torch.arange(window) < lengths[:, None])[:, None, None]
    wanted = F.scaled_dot_product_attention(query[:, :, None], keys, values, attn_mask=seen)[:, :, 0]
    torch.testing.assert_close(mixed, wanted)
    now = cache.state(window)
    for name, stored in (("keys", keys), ("values", values)):
        assert np.array_equal(now[name][1], stored.numpy())
        assert np.array_equal(now[name][0], rounded(held[name])[0]), "the other layer"


def rounded(array):
    """To 15 bits beside a sign, below the power of two above the largest."""
    scale = 2.0 ** (np.frexp(np.abs(array).max(axis=-1, keepdims=True))[1] - 15)
    return (np.clip(np.rint(array / scale), -32767, 32767) * scale).astype(np.float32)


def test_a_number_is_off_by_a_share_of_the_largest_beside_it_and_a_checkpoint_changes_nothing():
    rng = np.random.default_rng(1)
    held = state(rng)
    held["keys"][0, 0, 0, :6, 0] = 0, 1, 2, 4 - 1e-6, 1e30, 1e-44
    held["keys"][0, 0, 0, :6, 1:] = 0
    first, second = (CpuCache(1, 5, 2, 40, 16) for _ in range(2))
    first.load_state(held)
    kept = first.state(21)
    for name, array in held.items():
        largest = np.abs(array).max(axis=-1, keepdims=True)
        assert (np.abs(kept[name] - array) <= np.maximum(2.0**-15 * largest, 1e-30)).all()
        assert np.array_equal(kept[name][..., 6:, :], rounded(array)[..., 6:, :])
    second.load_state(kept)
    assert np.array_equal(first._keys, second._keys)
    assert np.array_equal(first._values, second._values)
    for name, array in second.state(10_000).items():
        assert array.shape == (1, 5, 2, 40, 16)
        assert np.array_equal(array[:, :, :, :21], kept[name])
        assert not array[:, :, :, 21:].any()


def test_its_checkpoint_is_that_of_a_gpu():
    rng = np.random.default_rng(2)
    there, here = TensorCache(1, 5, 2, 40, 16, CPU, torch.float32), CpuCache(1, 5, 2, 40, 16)
    held = state(rng)
    there.load_state(held)
    here.load_state(there.state(21))
    there.load_state(here.state(21))
    for name, array in there.state(21).items():
        assert np.array_equal(array, rounded(held[name]))


@pytest.mark.parametrize("sizes", [(2, 5, 2, 21, 16), (1, 4, 2, 21, 16), (1, 5, 3, 21, 16), (1, 5, 2, 41, 16), (5, 2)])
@pytest.mark.parametrize("wrong", ["keys", "values"])
def test_a_checkpoint_of_other_sizes_is_refused(wrong, sizes):
    held = {**state(np.random.default_rng(0)), wrong: np.ones(sizes, np.float32)}
    with pytest.raises(ValueError, match="do not fit a memory"):
        CpuCache(1, 5, 2, 40, 16).load_state(held)


def test_a_part_is_the_same_memory():
    rng = np.random.default_rng(3)
    whole, parted = (CpuCache(1, 5, 2, 40, 16) for _ in range(2))
    steps = torch.tensor([0, 3, 7, 1, 2])
    new = [torch.from_numpy(rng.normal(size=(5, 2, 16)).astype(np.float32)) for _ in range(3)]
    wanted = whole.attend(0, tuple(new), whole.places(steps, 8))
    for rows in (slice(0, 2), slice(2, 5)):
        part = parted.part(rows)
        assert torch.equal(part.attend(0, tuple(one[rows] for one in new), part.places(steps[rows], 8)), wanted[rows])
    for name, array in whole.state(40).items():
        assert np.array_equal(array, parted.state(40)[name])


@pytest.mark.parametrize("available", [True, False])
def test_memory_begins_as_zeros_with_and_without_large_pages(available, monkeypatch):
    if not available:
        monkeypatch.delattr(cpu_cache.mmap, "MADV_HUGEPAGE", raising=False)
    memory = cpu_cache.zeros(2, 3, 700_000)
    assert memory.dtype == np.int16
    assert memory.shape == (2, 3, 700_000)
    assert not memory.any()
    memory += 1
    assert memory.sum() == memory.size
