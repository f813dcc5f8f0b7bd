"""Positions on a grid and their coordinates, row-major.

NumPy's `unravel_index` gives wrong coordinates for arrays of more than 8192 elements with a last dimension of 1
(2.4.6), so that division does it here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spattn.expressions.evaluation import IntArray


def places_of(positions: IntArray, shape: Sequence[int]) -> list[IntArray]:
    """The coordinates of positions, axis by axis; the first is not bounded."""
    places: list[IntArray] = []
    for length in reversed(shape[1:]):
        places.append(np.asarray(positions % length, np.int64))
        positions = positions // length
    return [np.asarray(positions, np.int64), *reversed(places)]


def positions_of(places: Sequence[IntArray], shape: Sequence[int]) -> IntArray:
    """The positions of coordinates."""
    found = np.asarray(places[0], np.int64)
    for place, length in zip(places[1:], shape[1:], strict=True):
        found = found * length + place
    return found
