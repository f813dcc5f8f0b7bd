"""Walks that share a loop: each tile has the first column, the step and the mask of the walk that it is of."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels import SMALL, TILES, check, check_gradients, drawn

pytestmark = pytest.mark.interpret

PATTERNS = (
    # steps of 1, 1, 3 and 1
    "blockwise(42, anticausal) - (vertical_slash([75:-1:3, :120], [8, -3, 8]) & vertical_slash([5, 1], [109::6, 7]))",
    "(last(6) | columns([::4])) & causal",
    "(last(9) | columns([2::4]) | columns([1::3])) & causal",
)


@pytest.mark.parametrize("tile", TILES, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_results(pattern, tile):
    check(pattern, drawn(15, 123, heads=(1, 1)), tile)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gradients(pattern):
    check_gradients(pattern, drawn(43, 61, heads=(2, 1)), SMALL)


def test_ends_of_64_bits_beside_others():
    pattern = "(fixed(34, 34) | valid(lengths)) | last(8)"
    check(pattern, drawn(57, 80, batch=1, heads=(1, 1), tensors={"lengths": np.array([42], np.int64)}))


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_ends_of_all_rows_beside_each_rows_own(tile):
    ids = np.repeat(np.arange(3, dtype=np.int32), [40, 21, 62])[None]
    given = drawn(15, 123, batch=1, heads=(1, 1), tensors={"ids": ids})
    check("~packed_causal(ids) - (within(ids, prefix(6)) | prefix(1))", given, tile)
