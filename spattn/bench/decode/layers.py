"""The caches of a model's layers, so many that the bytes which steps read do not stay in the L2 cache.

All lie in one allocation. Where it cannot hold them side by side they overlap, moved by an odd number of rows, so that
a sparse pattern still reads other bytes of each; how many these are is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch

from spattn.bench.decode.workload import DecodeWorkload, Numbers, Stored
from spattn.bench.lengths import short
from spattn.serving import Dense, Paged, Ring, Storage

ROTATED = 4
"""Bytes that a round of all layers reads, in sizes of the L2 cache."""
CPU_CACHE = 1 << 18
"""Bytes, where the device does not say."""
SHARE = 0.7
"""Of the free memory that caches may take."""
CHUNK = 1 << 26
K_SCALE, V_SCALE = 0.5, 0.25
"""Of float8."""


class TooLargeError(Exception):
    """One layer alone has no room."""


@dataclass(frozen=True)
class Layers:
    """Caches that steps go round.

    Attributes:
        caches: One a layer; all have the same lengths and the same table.
        rotated_bytes: Different bytes that a round reads.
    """

    caches: Sequence[Storage]
    rotated_bytes: int


def layers_of(one: DecodeWorkload, dtype: torch.dtype, kv_lens: torch.Tensor, needed: Sequence[torch.Tensor]) -> Layers:
    """Caches of random numbers.

    Args:
        one: The workload.
        dtype: Of q, and of what is stored plainly.
        kv_lens: int32 `[batch]`.
        needed: The positions that the rows of each request need.

    Raises:
        TooLargeError: They do not fit.
    """
    device, width = kv_lens.device, one.head_dim
    kind = torch.float8_e4m3fn if one.numbers is Numbers.FP8 else dtype
    shape = _shape(one)
    rows = prod(shape) // width
    read = 2 * sum(map(len, needed)) * one.kv_heads * width * kind.itemsize
    count = max(1, ceil(ROTATED * cache_bytes(device) / max(read, 1)))
    room = _room(device) // (2 * width * kind.itemsize)
    if rows > room:
        size = 2 * rows * width * kind.itemsize / 2**30
        raise TooLargeError(f"keys and values of a layer alone are {size:.3g} GiB ({short(one.length)} tokens each)")
    step = rows if count * rows <= room else max((room - rows) // (count - 1) - 1, 0) | 1
    total = (rows + (count - 1) * step) * width
    pools = [_random(total, kind, device) for _ in "kv"]
    views = [
        [pool[i * step * width : i * step * width + rows * width].view(shape) for pool in pools] for i in range(count)
    ]
    table = _table(one, device)
    caches = [_cache(one, k, v, kv_lens, table) for k, v in views]
    if step == rows:
        return Layers(caches, count * read)
    marks = torch.zeros(total // width, dtype=torch.bool, device=device)
    for cache in caches:
        for request, positions in enumerate(needed):
            marks[_rows_of(cache, request, positions)] = True
    return Layers(caches, 2 * int(marks.sum()) * width * kind.itemsize)


def cache_bytes(device: torch.device) -> int:
    """Of the L2 cache."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.type == "cuda" else CPU_CACHE


def _room(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0] * SHARE) if device.type == "cuda" else 1 << 30


def _shape(one: DecodeWorkload) -> tuple[int, ...]:
    size = one.stored.page_size
    if size:
        return one.batch * -(-one.length // size), size, one.kv_heads, one.head_dim
    slots = one.length
    if one.stored is Stored.RING:
        sizes: dict[str, Any] = {"batch": 1, "num_kv_heads": 1, "head_dim": 1, "device": "cpu"}
        ring = Ring.allocate(one.compiled.live(), max_kv_len=one.length, max_new=one.new, **sizes)
        slots = ring.keys.shape[1]
    return one.batch, one.kv_heads, slots, one.head_dim


def _cache(
    one: DecodeWorkload, k: torch.Tensor, v: torch.Tensor, kv_lens: torch.Tensor, table: torch.Tensor | None
) -> Storage:
    scales: dict[str, Any] = {"k_scale": K_SCALE, "v_scale": V_SCALE} if one.numbers is Numbers.FP8 else {}
    if table is not None:
        return Paged(k, v, table, kv_lens, **scales)
    if one.stored is Stored.RING:
        return Ring(k, v, kv_lens, one.compiled.live(), max_kv_len=one.length, **scales)
    return Dense(k, v, kv_lens, **scales)


def _table(one: DecodeWorkload, device: torch.device) -> torch.Tensor | None:
    """Pages in any order."""
    size = one.stored.page_size
    if not size:
        return None
    each = -(-one.length // size)
    order = torch.randperm(one.batch * each, generator=torch.Generator().manual_seed(0))
    return order.to(torch.int32).view(one.batch, each).to(device)


def _random(count: int, kind: torch.dtype, device: torch.device) -> torch.Tensor:
    """Normal numbers, made a part at a time."""
    pool = torch.empty(count, dtype=kind, device=device)
    generator = torch.Generator(device).manual_seed(count % 997)
    for first in range(0, count, CHUNK):
        part = pool[first : first + CHUNK]
        part.copy_(torch.randn(len(part), generator=generator, device=device))
    return pool


def _rows_of(cache: Storage, request: int, positions: torch.Tensor) -> torch.Tensor:
    """Which rows of the allocation hold the keys of some positions."""
    keys = cache.keys
    blocks, slots = cache.places(request, positions)
    block, slot, head, _ = keys.stride()
    at = blocks * block + slots * slot + int(keys.storage_offset())
    heads = torch.arange(keys.shape[2], device=keys.device) * head
    return (at[:, None] + heads).flatten() // keys.shape[3]
