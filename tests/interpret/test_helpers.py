"""The functions that kernels call, one by one, beside NumPy and the layout that runs in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spattn.layout.trips import Ends, trips

pytestmark = pytest.mark.interpret
triton = pytest.importorskip("triton")
tl = triton.language
helpers = pytest.importorskip("spattn.kernels.triton")

NUMBERS = st.integers(-300, 300)


@triton.jit
def _divide(x_ptr, out_ptr, d, COUNT: tl.constexpr):
    i = tl.arange(0, COUNT)
    x = tl.load(x_ptr + i)
    tl.store(out_ptr + i, helpers.floor_div(x, d))
    tl.store(out_ptr + COUNT + i, helpers.floor_mod(x, d))
    tl.store(out_ptr + 2 * COUNT + i, helpers.below(x, d).to(tl.int32))


@triton.jit
def _tiles(out_ptr, lo, hi, cursor, BLOCK_N: tl.constexpr):
    first, tiles, after = helpers.tiles_of(lo, hi, cursor, BLOCK_N)
    tl.store(out_ptr, first)
    tl.store(out_ptr + 1, tiles)
    tl.store(out_ptr + 2, after)


@triton.jit
def _mend(v_ptr, out_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    v = tl.load(v_ptr + i[:, None] * N + i[None, :])
    weights = tl.where(i[:, None] >= i[None, :], 1.0, 0.0)
    made = helpers.accumulated(weights, i[:, None] >= i[None, :], v, tl.zeros([N, N], tl.float32), "ieee", True)
    tl.store(out_ptr + i[:, None] * N + i[None, :], made)


def launched(
    kernel: Any, count: int, tensors: list[Any], numbers: tuple[int, ...], **constants: int
) -> np.ndarray[Any, Any]:
    """What a kernel writes that is given tensors, a place for so many numbers, and numbers."""
    out = torch.zeros(count, dtype=torch.int32)
    kernel[(1,)](*tensors, out, *numbers, **constants)
    return out.numpy()


@settings(max_examples=30)
@given(st.lists(NUMBERS, min_size=16, max_size=16), st.integers(1, 40))
def test_division_rounds_down(numbers: list[int], d: int) -> None:
    found = launched(_divide, 48, [torch.tensor(numbers, dtype=torch.int32)], (d,), COUNT=16)
    x = np.array(numbers)
    np.testing.assert_array_equal(found.reshape(3, 16), [x // d, x % d, (x >= 0) & (x < d)])


@settings(max_examples=50)
@given(NUMBERS, NUMBERS, NUMBERS, st.sampled_from([16, 32, 64]))
def test_tiles_are_those_of_the_layout(lo: int, hi: int, cursor: int, block_n: int) -> None:
    found = launched(_tiles, 3, [], (lo, hi, cursor), BLOCK_N=block_n)
    none = np.array([0])
    wanted = trips(Ends(np.array([lo]), np.array([hi]), none, none - 1), np.array([cursor]), block_n)
    assert found.tolist() == [wanted.lo[0], wanted.tiles[0], wanted.cursor[0]]


def test_a_value_that_no_allowed_pair_meets_spoils_nothing() -> None:
    v = torch.ones(16, 16)
    v[5, 3], v[9, 3] = float("nan"), float("inf")
    out = torch.zeros(16, 16)
    _mend[(1,)](v, out, N=16)
    spoiled = torch.zeros(16, 16, dtype=torch.bool)
    spoiled[5:, 3] = True
    assert torch.equal(out.isnan(), spoiled)
