"""A pytest fixture by which a test draws the same each time, also where nobody gives a seed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium.utils import seeding


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Spaces, environments and secrets without a seed get one each, by their order; PyTorch's generator begins anew."""
    original, count = seeding.np_random, itertools.count(1)

    def np_random(seed: int | None = None) -> tuple[np.random.Generator, Any]:
        return original(int(np.random.SeedSequence(next(count)).generate_state(1)[0]) if seed is None else seed)

    monkeypatch.setattr(seeding, "np_random", np_random)
    # The cases of a secret, too: what a test finds on them depends a little on which they are.
    monkeypatch.setattr("mtbench.cases.secrets", SimpleNamespace(token_hex=lambda n: np_random()[0].bytes(n).hex()))
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
