"""Tile sizes of a pass for a device and a shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from spattn.expressions.algebra import subexpressions
from spattn.expressions.evaluation import evaluate
from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import Read
from spattn.expressions.tensors import Tensors
from spattn.layout.ir import Blocks, FrameClamp, Pass, SegmentClamp

LONG_WALK = 2048  # keys a row; where 128 x 128 tiles overtake 64 x 64 ones (H200, bf16, head dimension 128)


class Dtype(Protocol):
    """What a tile's size depends on; a `torch.dtype` has it, and compiling ahead needs no torch."""

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        ...


@frozen
class Tile:
    """`block_m` queries by `block_n` keys a step, and how Triton schedules them."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


def next_power(n: int) -> int:
    """The least power of two that is at least n and 16, the smallest side of a matrix product."""
    return max(16, 1 << (n - 1).bit_length())


def choose(one: Pass, dtype: Dtype, head_dim: int, rows: int, keys: int, shared: int) -> Tile:
    """The tile for `rows` rows in each residue of a pass, each with about `keys` keys.

    Args:
        one: The pass.
        dtype: Of q, k and v.
        head_dim: The wider of the two head dimensions.
        rows: Rows in each residue.
        keys: About how many keys each row walks over.
        shared: Bytes of shared memory that a program may have on the device.
    """
    tile = _usual(dtype, next_power(head_dim), keys)
    block_m = min(tile.block_m, next_power(rows))
    block_n = tile.block_n
    if one.block > 1:
        block_m = min(block_m, next_power(one.block))
    for walk in one.walks:
        if isinstance(walk.keys, Blocks):
            block_n = min(block_n, next_power(walk.keys.size))
    warps = tile.num_warps if block_m >= 128 else 4
    tile = replace(tile, block_m=block_m, block_n=block_n, num_warps=warps)
    return _fitting(tile, next_power(head_dim) * dtype.itemsize, shared)


def _fitting(tile: Tile, row_bytes: int, shared: int) -> Tile:
    """Fewer stages, then fewer keys a step, until queries, keys and values in flight fit into shared memory."""
    while (tile.block_m + 2 * tile.block_n * tile.num_stages) * row_bytes > shared:
        if tile.num_stages > 1:
            tile = replace(tile, num_stages=tile.num_stages - 1)
        elif tile.block_n > 16:
            tile = replace(tile, block_n=tile.block_n // 2)
        else:
            break
    return tile


def _usual(dtype: Dtype, width: int, keys: int) -> Tile:
    """Fastest of six on an H200, bf16: short walks gain by small tiles, whose edges mask less and of which two fit."""
    if dtype.itemsize == 4:
        return Tile(64, 32, 4, 2) if width <= 64 else Tile(32, 32, 4, 2) if width <= 128 else Tile(16, 16, 4, 1)
    if width <= 64:
        return Tile(64, 64, 4, 3)
    if width <= 128:
        return Tile(64, 64, 4, 3) if keys < LONG_WALK else Tile(128, 128, 8, 3)
    return Tile(64, 32, 4, 2)


def expected_keys(one: Pass, kv_len: int) -> int:
    """About how many keys a row in the middle of `kv_len` tokens walks over; for the choice of a tile, no more."""
    middle = {
        "u0": kv_len // 2,
        "u1": kv_len // 2,
        "c": 0,
        "kv_len": kv_len,
        "begin": 0,
        "last": kv_len - 1,
        "h": 0,
        "b": 0,
    }
    total = 0
    for walk in one.walks:
        if isinstance(walk.keys, Blocks):
            return LONG_WALK  # data decides
        if any(isinstance(clamp, SegmentClamp | FrameClamp) for clamp in walk.clamps):
            continue  # documents cut the walk: many edges, which small tiles mask less
        for r in walk.ranges:
            if any(isinstance(part, Read) for end in (r.lo, r.hi) for part in subexpressions(end)):
                return LONG_WALK
            lo, hi = (int(evaluate(end, middle, Tensors({}, 0))) for end in (r.lo, r.hi))
            total += max(min(hi, kv_len - 1) - max(lo, 0) + 1, 0)
    return total
