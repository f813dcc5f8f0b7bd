"""Ranges along an axis of a grid hold all that rows see, and not much more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import Bool, K, Q
from spattn.expressions.tensors import NOTHING
from spattn.frontend.grids import Axis
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.layout.axes import axis_range
from spattn.layout.boxes import axis_ends
from spattn.layout.coverage import coverage
from spattn.layout.ir import Box
from spattn.layout.planner import plan, swapped


@st.composite
def axes(draw: st.DrawFn) -> tuple[Bool, int]:
    length = draw(st.integers(1, 40))
    numbers = (draw(st.integers(1, top)) for top in (13, 5, 4))
    axis = Axis(length, *numbers, causal=draw(st.booleans()), cut=draw(st.booleans()))
    sees = axis.sees(Q, K)
    return (swapped(sees) if draw(st.booleans()) else sees), length


@given(axes())
def test_a_range_holds_what_its_rows_see(drawn: tuple[Bool, int]) -> None:
    axis, length = drawn
    place = np.arange(length)
    pairs = np.broadcast_to(evaluate(axis, {"q": place[:, None], "k": place}, NOTHING), (length, length))
    found = axis_range(axis, length)
    for width in (1, 4, length):
        for u0 in range(0, length, width):
            env = {"u0": u0, "u1": min(u0 + width, length) - 1, "begin": 0, "last": length - 1}
            seen = np.flatnonzero(pairs[u0 : u0 + width].any(0))
            lo, hi = (int(evaluate(end, env, NOTHING)) for end in (found.lo, found.hi))
            assert not len(seen) or (lo <= seen[0] and seen[-1] <= hi)
            if found.exact and width == 1:
                np.testing.assert_array_equal(seen, np.arange(max(lo, 0), min(hi, length - 1) + 1))


@pytest.mark.parametrize("text", ["k <= 2 and 2 <= k", "2 <= k and k <= 5 and q <= k", "k < 0", "0 <= k"])
def test_ends_may_be_constants(text: str) -> None:
    axis = meaning(parse(f"where({text})"))
    place = np.arange(9)
    pairs = np.broadcast_to(evaluate(axis, {"q": place[:, None], "k": place}, NOTHING), (9, 9))
    found = axis_range(axis, 9)
    lo, hi = axis_ends(found, place, place, 9)
    touched = (lo[:, None] <= place) & (place <= hi[:, None])
    assert (touched | ~pairs).all()
    assert found.exact == bool((touched == pairs).all())


@pytest.mark.parametrize(
    ("options", "ratio"),
    # keys near a border are seen from farther away; with a stride, ends of transposed ranges are up to one too far
    [("", 1.35), (", stride=4", 1.5), (", border=cut", 1.05), (", causal=true", 1.05)],
)
def test_a_transposed_window_is_about_as_wide_as_the_window(options: str, ratio: float) -> None:
    condition = meaning(parse(f"neighborhood(grid=[128, 128], kernel=[13, 13]{options})"))
    forward, transposed = (
        coverage(plan(condition, direction), 16384, 16384, 64, 64).total.pairs for direction in ("queries", "keys")
    )
    assert transposed <= ratio * forward


@pytest.mark.parametrize("grid", [(128, 96), (129, 96), (8, 12, 16)])
def test_dilated_windows_are_boxes(grid: tuple[int, ...]) -> None:
    condition = meaning(parse(f"neighborhood(grid={list(grid)}, kernel=3, dilation=3)"))
    for direction in ("queries", "keys"):
        (walk,) = plan(condition, direction).passes[0].walks
        assert isinstance(walk.keys, Box)
        assert walk.keys.shape == grid
