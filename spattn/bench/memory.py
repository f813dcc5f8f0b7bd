"""Memory that a step takes, as the allocator of the GPU counts it; on a CPU it is not known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class Memory:
    """Bytes beyond what was there before: the most at any time, and what stays."""

    peak: int | None = None
    kept: int | None = None


@contextmanager
def measured(device: torch.device) -> Iterator[Memory]:
    """Fills in a `Memory` when the block is left."""
    found = Memory()
    if device.type != "cuda":
        yield found
        return
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield found
    torch.cuda.synchronize(device)
    found.peak = torch.cuda.max_memory_allocated(device) - before
    found.kept = torch.cuda.memory_allocated(device) - before


def release(device: torch.device) -> None:
    """Gives back what is cached and unused."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def total(device: torch.device) -> int | None:
    """Bytes that the device has."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None
