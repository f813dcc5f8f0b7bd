"""The mask rebuilt from tiles: the rung between a plan and the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from spattn.expressions.evaluation import BoolArray
from spattn.expressions.tensors import Tensors
from spattn.layout.call import Call, calls, spread
from spattn.layout.ir import Layout, Walk
from spattn.layout.tiles import Tiles, kept_rows, row_tiles
from spattn.layout.visits import keys_of, visit_mask, visits
from spattn.oracle import is_spread

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def layout_mask(
    layout: Layout,
    q_len: int,
    kv_len: int,
    *,
    q_offset: int | None = None,
    given: tuple[int, int] | None = None,
    num_heads: int = 1,
    batch_size: int = 1,
    tensors: Mapping[str, Any] = _NOTHING,
    block_m: int = 64,
    block_n: int = 64,
) -> BoolArray:
    """The pairs that the layout's visits allow, as the oracle's `mask` gives them.

    Returns:
        `[q_len, keys]`, or `[batch_size, num_heads, q_len, keys]` where heads or batch entries may differ; keys are
        those at the positions `given`, all of the whole where it is not said.

    Raises:
        AssertionError: Two visits claim one pair, or one claims a pair that is not the call's.
    """
    reads, (first, stop) = Tensors(tensors, kv_len, batch_size, num_heads, q_len), given or (0, kv_len)
    mask = np.zeros((batch_size, num_heads, q_len, stop - first), np.bool_)
    over = spread(layout.condition, reads)
    sizes: dict[str, Any] = {"given": given, "batch_size": batch_size, "num_heads": num_heads}
    for call in calls(layout, q_len, kv_len, reads, q_offset=q_offset, **sizes):
        one = _call_mask(layout, call, block_m, block_n)
        where = (call.batch if over.batch else slice(None), call.head if over.heads else slice(None))
        mask[where] = one if layout.direction == "queries" else one.T
    return mask if is_spread(layout.condition, reads) else mask[0, 0]


def _call_mask(layout: Layout, call: Call, block_m: int, block_n: int) -> BoolArray:
    """[rows, columns]."""
    mask = np.zeros((call.rows[1] - call.rows[0], call.columns[1] - call.columns[0]), np.bool_)
    for i, one in enumerate(layout.passes):
        tiles = row_tiles(one, call, block_m)
        for j, walk in enumerate(one.walks):
            _claim(mask, walk, tiles, kept_rows(one, tiles, call), call, block_n, f"pass {i}, walk {j}")
    return mask


def _claim(mask: BoolArray, walk: Walk, tiles: Tiles, kept: BoolArray, call: Call, block_n: int, name: str) -> None:
    """Sets the pairs of a walk."""
    seen = visits(walk, tiles, call, block_n)
    keys = keys_of(walk, tiles, seen, call, block_n)
    allowed = visit_mask(walk, tiles, seen, keys, call) & kept[seen.tile][:, :, None]
    visit, i, j = np.nonzero(allowed)
    row, column = tiles.rows[seen.tile[visit], i] - call.rows[0], keys.positions[visit, j] - call.columns[0]
    outside = ~keys.inside[visit, j]
    assert not outside.any(), f"{name} claims keys outside of the call"
    claimed, times = np.unique(row * mask.shape[1] + column, return_counts=True)
    twice = claimed[(times > 1) | mask.ravel()[claimed]]
    assert not len(twice), f"{name} claims again {[divmod(int(pair), mask.shape[1]) for pair in twice[:3]]}"
    mask[row, column] = True
