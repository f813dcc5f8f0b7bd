"""What the device's memory gives: the quicker of a copy and of a sum, of more than any cache holds."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch

from spattn.bench.timing import milliseconds_of

BYTES = {"cuda": 1 << 30, "cpu": 1 << 24}
SAMPLES = 10


def bandwidth(device: torch.device) -> float:
    """Bytes a second."""
    source = torch.zeros(BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)
    summed = source.nbytes / _seconds(lambda: torch.sum(source), device)
    return max(copied, summed)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    call()
    return median(milliseconds_of(call, device) for _ in range(SAMPLES)) / 1e3
