"""The patterns of the catalogue as mask functions, as somebody who has FlexAttention writes them.

Each function here takes a `Setting` and gives the mask for it. `tests/bench` holds each against the oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spattn.bench.workloads.tensors import sides
from spattn.bench.workloads.workload import Mask, Setting
from spattn.philox import random_blocks

BLOCK = 64
"""Tokens a block of `random(n)`."""


def causal(at: Setting) -> Mask:
    """`causal`."""
    return lambda b, h, q, k: q >= k


def last(width: int, dilation: int = 1) -> Callable[[Setting], Mask]:
    """`last(width, dilation=dilation)`."""
    if dilation == 1:
        return lambda at: lambda b, h, q, k: (q >= k) & (q - k < width)
    reach = width * dilation
    return lambda at: lambda b, h, q, k: (q >= k) & (q - k < reach) & ((q - k) % dilation == 0)


def near_and_strided(stride: int) -> Callable[[Setting], Mask]:
    """`last(stride) | strided(stride) & causal`."""
    return lambda at: lambda b, h, q, k: (q >= k) & ((q - k < stride) | ((q - k) % stride == 0))


def headers(width: int, every: int) -> Callable[[Setting], Mask]:
    """`(last(width) | columns([::every])) & causal`."""
    return lambda at: lambda b, h, q, k: (q >= k) & ((q - k < width) | (k % every == 0))


def documents(at: Setting) -> Mask:
    """`documents(ids) & causal`."""
    ids = at.tensors["ids"]
    return lambda b, h, q, k: (ids[q] == ids[k]) & (q >= k)


def blocks(size: int) -> Callable[[Setting], Mask]:
    """`blocks(t, size=size)`."""

    def mask(at: Setting) -> Mask:
        marks = at.tensors["t"]
        return lambda b, h, q, k: marks[q // size, k // size]

    return mask


def drawn(at: Setting, count: int = 3) -> torch.Tensor:
    """[heads, blocks, blocks]: what `random(count)` draws."""
    number = -(-at.length // BLOCK)
    chosen = random_blocks(count, 0, False, number, np.arange(at.heads), np.arange(number))
    chosen = np.where(chosen < 0, number, chosen)  # fewer blocks than draws: into a column that is cut off
    marks = torch.zeros(at.heads, number, number + 1, dtype=torch.bool, device=at.device)
    return marks.scatter_(2, torch.from_numpy(chosen).to(at.device), True)[..., :number].contiguous()


def example(at: Setting) -> Mask:
    """`local(128) | global([0, 7]) | random(3)`."""
    marks = drawn(at)

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        is_global = (q == 0) | (q == 7) | (k == 0) | (k == 7)
        return ((q - k).abs() <= 128) | is_global | marks[h, q // BLOCK, k // BLOCK]

    return mask


def bigbird(at: Setting) -> Mask:
    """`local(128) | global([0:64]) | random(3)`."""
    marks = drawn(at)
    return lambda b, h, q, k: ((q - k).abs() <= 128) | (q < 64) | (k < 64) | marks[h, q // BLOCK, k // BLOCK]


def neighbours_cut(reach: int) -> Callable[[Setting], Mask]:
    """`neighborhood(grid=[height, width], kernel=[2*reach+1, 2*reach+1], border=cut)`."""

    def mask(at: Setting) -> Mask:
        _, width = sides(at.length)
        return lambda b, h, q, k: ((q // width - k // width).abs() <= reach) & ((q % width - k % width).abs() <= reach)

    return mask


def neighbours_and_first(at: Setting) -> Mask:
    """`neighborhood(grid=[height, width], kernel=[13, 13]) | global([0])`: at a border the box moves inwards."""
    height, width = sides(at.length)

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        down = k // width - (q // width - 6).clamp(0, height - 13)
        right = k % width - (q % width - 6).clamp(0, width - 13)
        inside = (down >= 0) & (down < 13) & (right >= 0) & (right < 13)
        return inside | (q == 0) | (k == 0)

    return mask


def window_stride_sink(at: Setting) -> Mask:
    """`last(1024) | strided(128) & causal | sink(4)`."""
    return lambda b, h, q, k: ((q >= k) & ((q - k < 1024) | ((q - k) % 128 == 0))) | (k < 4)


def two_kinds_of_heads(at: Setting) -> Mask:
    """`heads([0:8]) & local(128) | heads([8:]) & strided(64) & causal`."""

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        near = (q - k).abs() <= 128
        return ((h < 8) & near) | ((h >= 8) & (q >= k) & ((q - k) % 64 == 0))

    return mask


def documents_window_columns(at: Setting) -> Mask:
    """`documents(ids) & causal & (last(512) | columns([::64]))`."""
    ids = at.tensors["ids"]
    return lambda b, h, q, k: (ids[q] == ids[k]) & (q >= k) & ((q - k < 512) | (k % 64 == 0))


def within_window_sink(at: Setting) -> Mask:
    """`within(ids, last(512) | sink(4))`."""
    ids = at.tensors["ids"]
    start = torch.searchsorted(ids, ids)  # ids ascend
    return lambda b, h, q, k: (ids[q] == ids[k]) & (((q >= k) & (q - k < 512)) | (k - start[k] < 4))


def odd_columns(at: Setting) -> Mask:
    """`causal - columns([::2])`."""
    return lambda b, h, q, k: (q >= k) & (k % 2 == 1)
