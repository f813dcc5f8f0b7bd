"""The boxes of keys that a walk over a grid visits, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np

from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.tensors import Tensors
from spattn.layout.ir import Box, box_sides
from spattn.relation.bounds import Range

UNEVEN = 1.15  # as long takes a box whose sides are no powers of two, since a thread divides for its tokens' places
NOTHING = Tensors({}, 0)


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
    env = {"u0": first, "u1": np.minimum(first + side, length) - 1, "begin": 0, "last": length - 1}
    lo = np.maximum(evaluate(one.lo, env, NOTHING), 0)
    hi = np.minimum(evaluate(one.hi, env, NOTHING), length - 1)
    return np.asarray(np.maximum(np.broadcast_to(hi - lo + 1, first.shape), 0), np.int64)
