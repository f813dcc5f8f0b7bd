"""Positions and coordinates of a grid."""

from __future__ import annotations

import numpy as np
import pytest

from spattn.compiler import compile_pattern
from spattn.frontend.parser import parse
from spattn.layout.grid_index import places_of, positions_of
from spattn.layout.rebuild import layout_mask
from spattn.oracle import mask


@pytest.mark.parametrize("shape", [(7, 5), (40, 40), (3, 4, 5), (9,)])
@pytest.mark.parametrize("extra", [(), (1,), (1, 1)])
def test_there_and_back(shape: tuple[int, ...], extra: tuple[int, ...]) -> None:
    positions = (np.arange(12000) % np.prod(shape)).reshape(150, 80, *extra)
    places = places_of(positions, shape)
    for place, length in zip(places, shape, strict=True):
        assert place.shape == positions.shape
        assert ((place >= 0) & (place < length)).all()
    assert (positions_of(places, shape) == positions).all()


def test_a_grid_of_many_tiles_is_rebuilt() -> None:
    pattern = "neighborhood(grid=[40, 40], kernel=[5, 5], border=cut)"
    rebuilt = layout_mask(compile_pattern(pattern).layout(), 1600, 1600, block_m=64, block_n=32)
    assert (np.asarray(rebuilt).reshape(1600, 1600) == mask(parse(pattern), 1600, 1600)).all()
