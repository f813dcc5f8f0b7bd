"""The boxes of keys that a walk over a grid visits, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np

from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.tensors import NOTHING
from spattn.layout.ir import Box, box_sides
from spattn.relation.bounds import Range

UNEVEN = 1.15  # as long takes a box whose sides are no powers of two, since a thread divides for its tokens' places


def sides_of(boxes: Iterable[Box], block_m: int, block_n: int) -> tuple[int, ...]:
    """The sides of the key boxes of several walks, one walk after the other."""
    return tuple(side for box in boxes for side in key_sides(box, block_m, block_n))


@lru_cache(maxsize=1024)
def key_sides(box: Box, block_m: int, block_n: int) -> tuple[int, ...]:
    """Sides of a box of at most `block_n` keys, for the tiles of `block_m` rows of the box's grid."""
    rows = box_sides(block_m, len(box.shape))
    return covering_sides(block_n, [*map(_widths, box.ranges, box.shape, rows)])


def covering_sides(block: int, widths: Sequence[IntArray]) -> tuple[int, ...]:
    """Sides of a box of at most `block` tokens, of which few cover ranges so wide on each axis; small ones first."""
    numbers = np.arange(1, block + 1)
    parts = [(-(-width[:, None] // numbers)).mean(0) for width in widths]
    inner = (found for found in product(numbers.tolist(), repeat=len(widths) - 1) if prod(found) <= block)

    def costs(sides: tuple[int, ...]) -> tuple[float, int, int]:
        boxes = prod(part[side - 1] for part, side in zip(parts, sides, strict=True))
        return boxes * (1 if prod(sides) == block else UNEVEN), prod(sides), -sides[-1]

    return min(((block // prod(found), *found) for found in inner), key=costs)


def _widths(one: Range, length: int, side: int) -> IntArray:
    """How many coordinates each tile's range has on an axis."""
    first = np.arange(0, length, side)
    lo, hi = axis_ends(one, first, np.minimum(first + side, length) - 1, length)
    return np.asarray(np.maximum(hi - lo + 1, 0), np.int64)


def axis_ends(one: Range, first: IntArray, last: IntArray, length: int) -> tuple[IntArray, IntArray]:
    """The first and the last coordinate of an axis that rows `first` to `last` touch; none where they cross."""
    env = {"u0": first, "u1": last, "begin": 0, "last": length - 1}
    lo, hi = (np.asarray(evaluate(end, env, NOTHING), np.int64) for end in (one.lo, one.hi))
    return np.broadcast_to(np.maximum(lo, 0), first.shape), np.broadcast_to(np.minimum(hi, length - 1), first.shape)
