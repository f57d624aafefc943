"""Where the hidden layers compute in bfloat16."""

from __future__ import annotations

import torch


def half_precision(device: torch.device) -> bool:
    """Whether they do: on GPUs. Values, probabilities and weights are float32 everywhere."""
    return device.type == "cuda"
