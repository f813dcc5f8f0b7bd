"""Philox 4x32-10 (Salmon et al. 2011) and the random blocks drawn with it.

The stream is part of the language: the same blocks for each device, version and world size. Key: the 64 bits of the
seed. Counter: query block, draw, head, `STREAM`. A draw uses the first of the four words that a counter gives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Words = NDArray[np.uint64]

STREAM = 0x7370_6174
"""Sets these draws apart from other uses of one seed ("spat" in ASCII). Changing it changes each random pattern."""

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox(key: int, counter: tuple[Words, Words, Words, Words]) -> tuple[Words, Words, Words, Words]:
    """Ten rounds: four 32-bit words for each counter, held in 64 bits."""
    c0, c1, c2, c3 = counter
    low, high = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    for _ in range(10):
        left, right = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = (right >> _SHIFT) ^ c1 ^ np.uint64(low), right & _LOW
        c2, c3 = (left >> _SHIFT) ^ c3 ^ np.uint64(high), left & _LOW
        low, high = (low + _WEYL[0]) & 0xFFFFFFFF, (high + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def random_blocks(
    count: int, seed: int, past: bool, key_blocks: int, heads: IntArray, query_blocks: IntArray
) -> IntArray:
    """Distinct key blocks for each head and query block.

    Floyd's sampling: of m blocks, draw i of n takes t from 0 .. m-n+i, or m-n+i itself where t is taken. A
    multiply-high maps 32 random bits to that range, uneven by at most m / 2**32.

    Args:
        count: How many blocks; where there are fewer, all are taken.
        seed: 64 bits.
        past: Draw from the blocks up to the query block itself.
        key_blocks: How many key blocks there are.
        heads: `[heads]`.
        query_blocks: `[query blocks]`, negative ones included.

    Returns:
        `[heads, query blocks, count]`, -1 where fewer than `count` exist.
    """
    available = np.clip(query_blocks + 1, 0, key_blocks) if past else np.full_like(query_blocks, key_blocks)
    wanted = np.minimum(count, available)
    drawn = np.full((len(heads), len(query_blocks), count), -1, np.int64)
    for draw in range(int(wanted.max(initial=0))):
        last = available - wanted + draw
        value = _below(seed, heads, query_blocks, draw, last + 1)
        taken = (drawn[:, :, :draw] == value[:, :, None]).any(axis=2)
        drawn[:, :, draw] = np.where(draw < wanted, np.where(taken, last, value), -1)
    return drawn


def _below(seed: int, heads: IntArray, query_blocks: IntArray, draw: int, bound: IntArray) -> IntArray:
    """A number of `0 .. bound-1` for each head and query block."""
    shape = (len(heads), len(query_blocks))
    block = np.broadcast_to((query_blocks & 0xFFFFFFFF).astype(np.uint64), shape)
    head = np.broadcast_to((heads & 0xFFFFFFFF).astype(np.uint64)[:, None], shape)
    words = philox(seed, (block, np.full(shape, draw, np.uint64), head, np.full(shape, STREAM, np.uint64)))
    return ((words[0] * np.maximum(bound, 1).astype(np.uint64)) >> _SHIFT).astype(np.int64)
