"""Offsets beyond 2^31 elements: a few rows far apart in memory that is reserved and otherwise never touched."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from tests.kernels import check, drawn

pytestmark = pytest.mark.interpret

RESERVED = getattr(mmap, "MAP_NORESERVE", 0x4000) | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def spread_out(x: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """The same values at these strides, whose rows would not fit into memory with what lies between them."""
    elements = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, strides, strict=True))
    memory = mmap.mmap(-1, elements * x.element_size(), flags=RESERVED)
    flat = torch.frombuffer(memory, dtype=x.dtype)
    return flat.as_strided(x.shape, tuple(strides)).copy_(x)


FAR = (1 << 31) + 16
STRIDES = {
    "batch": (FAR, 40 * 16, 16, 1),
    "heads": (2 * 40 * 16, FAR, 16, 1),
    "tokens": (16, 40 * (1 << 27), 1 << 27, 1),
}


@pytest.mark.parametrize("axis", STRIDES)
@pytest.mark.parametrize(
    "pattern", ["local(5)", "columns([::7]) | last(2)", "global([0, 39]) | strided(4)", "random(2, block=8)"]
)
def test_offsets_are_of_64_bits(pattern: str, axis: str) -> None:
    given = drawn(18, 40, batch=2, heads=(2, 2), dtype=torch.float16)
    strides = STRIDES[axis]
    batch = (2 * 40 * strides[2], *strides[1:]) if axis == "tokens" else strides
    check(
        pattern,
        replace(given, q=spread_out(given.q, batch), k=spread_out(given.k, batch), v=spread_out(given.v, batch)),
    )
