"""Run-time tensors of workloads, random but the same each time, on the CPU; and the sides of a grid."""

from __future__ import annotations

import math

import torch

from spattn.errors import ArgumentError

MEAN_DOCUMENT = 2048
TABLE_BLOCK = 128
MAX_RATIO = 4


def documents(length: int) -> dict[str, torch.Tensor]:
    """Ascending ids of documents cut at random places, of 2048 tokens in the mean; four documents at least."""
    mean = min(MEAN_DOCUMENT, max(length // 4, 1))
    cuts = torch.randperm(length - 1, generator=_generator())[: length // mean - 1] + 1
    ids = torch.zeros(length, dtype=torch.int32)
    ids[cuts] = 1
    return {"ids": ids.cumsum(0).to(torch.int32)}


def table(length: int, density: float = 0.1) -> dict[str, torch.Tensor]:
    """Random blocks and the diagonal."""
    number = -(-length // TABLE_BLOCK)
    marks = torch.rand(number, number, generator=_generator()) < density
    return {"t": marks | torch.eye(number, dtype=torch.bool)}


def sides(length: int) -> tuple[int, int]:
    """Height and width of the squarest grid of that many tokens.

    Raises:
        ArgumentError: E060, none is nearly square.
    """
    height = next(side for side in range(math.isqrt(length), 0, -1) if length % side == 0)
    if length > height * height * MAX_RATIO:
        raise ArgumentError("E060", f"{length} tokens make no grid that is nearly square", hint="try a power of two")
    return height, length // height


def grid(length: int) -> dict[str, int]:
    """The sides as names to bind."""
    height, width = sides(length)
    return {"height": height, "width": width}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
