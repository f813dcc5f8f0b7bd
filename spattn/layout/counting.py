"""How many pairs a pattern allows: from cuts and periods where it has them, else from the tiles that its layout visits.

The second way looks at partial tiles only, so a sparse pattern never costs q_len x kv_len.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spattn.expressions.nodes import Bool
from spattn.expressions.tensors import Tensors
from spattn.layout.call import Call, calls, spread
from spattn.layout.ir import Pass
from spattn.layout.planner import plan
from spattn.layout.tiles import Tiles, kept_rows, row_tiles
from spattn.layout.visits import keys_of, visit_mask, visits
from spattn.oracle import is_spread
from spattn.relation import counting
from spattn.relation.rows import too_long

BLOCK = 64
TILES = 64  # row tiles at a time
MAX_VISITS = 2**17  # of a pass that are looked at pair by pair: half a milliard pairs, ten seconds or so
VISITS = 512  # partial tiles at a time: 2 million pairs


def count(
    condition: Bool,
    q_len: int,
    kv_len: int,
    tensors: Mapping[str, Any] | None = None,
    q_offset: int | None = None,
    num_heads: int = 1,
    batch_size: int = 1,
    given: tuple[int, int] | None = None,
) -> int:
    """Allowed pairs, exactly: the sum of the oracle's mask.

    Args:
        condition: A pattern's meaning.
        q_len: Number of queries.
        kv_len: Number of keys of the whole.
        tensors: An array for each of the pattern's free names.
        q_offset: Position of the first query; the last query stands at the last key where it is not given.
        num_heads: Number of query heads.
        batch_size: Number of batch entries.
        given: Positions of the keys that are given, half-open; all of the whole where it is not said. One before 0 or
            past the end of the whole is in no pair that is allowed.

    Returns:
        Pairs of all heads and batch entries; of one where these cannot differ.

    Raises:
        UnsupportedError: E097, it would take too long.
    """
    arguments = (condition, q_len, kv_len, tensors, q_offset, num_heads, batch_size, given)
    found = counting.count(*arguments)
    if found is None:
        found = count_by_layout(*arguments)
    return found


def density(
    condition: Bool,
    q_len: int,
    kv_len: int,
    tensors: Mapping[str, Any] | None = None,
    q_offset: int | None = None,
    num_heads: int = 1,
    batch_size: int = 1,
    given: tuple[int, int] | None = None,
) -> float:
    """Allowed pairs over all pairs, 0.0 where there are none; arguments as those of `count`."""
    first, stop = given or (0, kv_len)
    pairs = q_len * (stop - first)
    if is_spread(condition, Tensors(tensors or {}, kv_len, batch_size, num_heads, q_len)):
        pairs *= batch_size * num_heads
    allowed = count(condition, q_len, kv_len, tensors, q_offset, num_heads, batch_size, given)
    return allowed / pairs if pairs else 0.0


def count_by_layout(
    condition: Bool,
    q_len: int,
    kv_len: int,
    tensors: Mapping[str, Any] | None = None,
    q_offset: int | None = None,
    num_heads: int = 1,
    batch_size: int = 1,
    given: tuple[int, int] | None = None,
) -> int:
    """`count` by the visits of the plan: full tiles whole, partial ones by their mask."""
    reads = Tensors(tensors or {}, kv_len, batch_size, num_heads, q_len)
    layout = plan(condition)
    over = spread(condition, reads)
    first, stop = given or (0, kv_len)
    inside = min(max(first, 0), kv_len), min(max(stop, 0), kv_len)
    sizes: dict[str, Any] = {"given": inside, "batch_size": batch_size, "num_heads": num_heads}
    launch = calls(layout, q_len, kv_len, reads, q_offset=q_offset, **sizes)
    total = sum(_pass_count(one, call) for call in launch for one in layout.passes)
    if not is_spread(condition, reads):
        return total
    return total * (1 if over.batch else batch_size) * (1 if over.heads else num_heads)


def _pass_count(one: Pass, call: Call) -> int:
    tiles = row_tiles(one, call, BLOCK)
    every = np.arange(len(tiles.rows))
    parts = (tiles.taken(every[begin : begin + TILES]) for begin in range(0, len(every), TILES))
    total = looked = 0
    for part in parts:
        pairs, visited = _tiles_count(one, part, call)
        total, looked = total + pairs, looked + visited
        if looked > MAX_VISITS:
            raise too_long("looking at so many tiles")
    return total


def _tiles_count(one: Pass, tiles: Tiles, call: Call) -> tuple[int, int]:
    """Pairs of some tiles, and how many of their visits were looked at."""
    kept = kept_rows(one, tiles, call)
    total = looked = 0
    for walk in one.walks:
        seen = visits(walk, tiles, call, BLOCK)
        total += int(kept[seen.tile[seen.full]].sum()) * BLOCK
        partial = np.flatnonzero(~seen.full)
        looked += len(partial)
        if looked > MAX_VISITS:
            raise too_long("looking at so many tiles")
        for begin in range(0, len(partial), VISITS):
            some = seen.taken(partial[begin : begin + VISITS])
            mask = visit_mask(walk, tiles, some, keys_of(walk, tiles, some, call, BLOCK), call)
            total += int((mask & kept[some.tile][:, :, None]).sum())
    return total, looked
