"""Boxes of grids: at every border, in every direction, whatever part of the grid a call has."""

from __future__ import annotations

import pytest

from spattn.codegen.tile import Tile
from tests.kernels import SMALL, check, check_gradients, drawn

pytestmark = pytest.mark.interpret

TALL, WIDE = Tile(64, 32, 4, 1), Tile(16, 64, 4, 1)
PATTERNS = (
    "neighborhood(grid=[9, 14], kernel=[3, 5])",
    "neighborhood(grid=[9, 14], kernel=[3, 5], border=cut)",
    "neighborhood(grid=[9, 14], kernel=[3, 5], causal=true)",
    "neighborhood(grid=[10, 12], kernel=[5, 5], stride=2)",
    "neighborhood(grid=[10, 12], kernel=[3, 3], dilation=2)",
    "neighborhood(grid=[4, 5, 6], kernel=[3, 3, 3])",
    "neighborhood(grid=[4, 5, 6], kernel=3, border=cut) | global([0])",
    "neighborhood(grid=[9, 14], kernel=[3, 5], border=cut) | neighborhood(grid=[9, 14], kernel=[7, 1], border=cut)",
)
CALLS = ((126, 126, None), (80, 126, None), (126, 103, None), (30, 140, 5), (120, 120, -7))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_results(pattern: str) -> None:
    for (q_len, kv_len, q_offset), tile in zip(CALLS, (SMALL, TALL, WIDE, TALL, SMALL), strict=True):
        check(pattern, drawn(q_len, kv_len, heads=(2, 1), q_offset=q_offset), tile)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gradients(pattern: str) -> None:
    for q_len, kv_len, q_offset in CALLS[2:4]:
        check_gradients(pattern, drawn(q_len, kv_len, heads=(2, 1), q_offset=q_offset), TALL)
