"""Tile sizes of a pass for a device and a shape."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from spattn.layout.ir import Blocks, Pass


@dataclass(frozen=True)
class Tile:
    """`block_m` queries by `block_n` keys a step, and how Triton schedules them."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


def next_power(n: int) -> int:
    """The least power of two that is at least n and 16, the smallest side of a matrix product."""
    return max(16, 1 << (n - 1).bit_length())


def choose(one: Pass, dtype: torch.dtype, head_dim: int, rows: int) -> Tile:
    """The tile for `rows` rows in each residue of a pass."""
    tile = _usual(dtype, next_power(head_dim))
    block_m = min(tile.block_m, next_power(rows))
    block_n = tile.block_n
    if one.block > 1:
        block_m = min(block_m, next_power(one.block))
    for walk in one.walks:
        if isinstance(walk.keys, Blocks):
            block_n = min(block_n, next_power(walk.keys.size))
    warps = tile.num_warps if block_m >= 128 else 4
    return replace(tile, block_m=block_m, block_n=block_n, num_warps=warps)


def _usual(dtype: torch.dtype, width: int) -> Tile:
    if dtype == torch.float32:
        return Tile(64, 32, 4, 2) if width <= 64 else Tile(32, 32, 4, 2) if width <= 128 else Tile(16, 16, 4, 1)
    if width <= 64:
        return Tile(128, 64, 4, 3)
    if width <= 128:
        return Tile(128, 64, 8, 3)
    return Tile(64, 32, 4, 2)
