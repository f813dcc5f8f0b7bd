"""Tiles of the backward passes: by dtype and head dimension, cut down to rows, blocks and shared memory, then split.

They hold the gradients of their rows beside two tiles of products, so they are smaller than those of the forward.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from spattn.codegen.kernel_specs import GRAD_KV, KernelSpec
from spattn.codegen.languages import serving
from spattn.codegen.tile import Tile, next_power
from spattn.cost.rates import TABLES
from spattn.cost.rates.table import LONG_WALK
from spattn.expressions.algebra import subexpressions
from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import Expr, RandomTable, Read, Sym
from spattn.expressions.tensors import NOTHING
from spattn.layout.boxes import axis_ends
from spattn.layout.ir import Blocks, Box, FrameClamp, Listed, Pass, SegmentClamp, Walk
from spattn.layout.tiling import present_residues, rows_each
from spattn.machine.device import Device
from spattn.relation.bounds import Range
from spattn.relation.lattice import Affine, Runs

RESIDENT = 3  # programs for each processor that a split pass wants
MIN_STEPS = 8  # tiles of columns that a split does at least
MAX_SPLITS = 64
SAMPLES = 8  # rows looked at


@frozen
class Extent:
    """A launch of backward passes, as far as it decides their tiles.

    Attributes:
        rows, columns: Positions, half-open.
        kv_len: Keys of the whole, in tokens.
        count: (batch, head) pairs.
        group: Heads that a program goes through.
        head_dim: The wider of the two head dimensions.
        itemsize: Bytes of an element of q, k and v.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    kv_len: int
    count: int
    group: int
    head_dim: int
    itemsize: int


def backward_tile(kind: KernelSpec, one: Pass, extent: Extent, device: Device, languages: tuple[str, ...]) -> Tile:
    """The tile of a pass."""
    return backward_candidates(kind, one, extent, device, languages)[0]


@lru_cache(maxsize=4096)
def backward_candidates(
    kind: KernelSpec, one: Pass, extent: Extent, device: Device, languages: tuple[str, ...]
) -> tuple[Tile, ...]:
    """The tile of a pass, then others that may be faster; of the languages that serve it, in their order."""
    seen = _columns_seen(one, extent)
    shapes = [
        tile for name in serving(one, kind.name, languages) for tile in _shapes(name, kind is GRAD_KV, extent, seen)
    ]
    return tuple(dict.fromkeys(_suited(shape, one, extent, seen, device) for shape in shapes))


def _shapes(language: str, of_keys: bool, extent: Extent, seen: int) -> list[Tile]:
    """Tiles of a language for rows that see so many columns, the best first."""
    table = TABLES[language]
    sizes = (width for size, width in table.backward if size == extent.itemsize)
    key = extent.itemsize, next(width for width in sizes if next_power(extent.head_dim) <= width)
    tiles = {least: pair[of_keys] for least, pair in table.backward[key].items()}
    first = tiles[max(least for least in tiles if least <= seen)]
    return [first, *tiles.values(), *(table.others[key][of_keys] if key in table.others else ())]


def _suited(tile: Tile, one: Pass, extent: Extent, seen: int, device: Device) -> Tile:
    """Cut down to what a pass has and the device holds; split where there are too few programs."""
    rows = rows_each(one, extent.rows, _listed(one, extent))
    block_m = min(tile.block_m, next_power(rows), next_power(one.block) if one.block > 1 else tile.block_m)
    sizes = [walk.keys.size for walk in one.walks if isinstance(walk.keys, Blocks)]
    tile = replace(tile, block_m=block_m, block_n=min(tile.block_n, *map(next_power, sizes), tile.block_n))
    tile = _fitting(tile, next_power(extent.head_dim) * extent.itemsize, device.shared)
    programs = -(-rows // tile.block_m) * present_residues(one, extent.rows) * extent.count
    steps = seen * extent.group // tile.block_n
    wanted = RESIDENT * device.processors // max(programs, 1)
    return replace(tile, splits=max(1, min(wanted, steps // MIN_STEPS, MAX_SPLITS)))


def _fitting(tile: Tile, row_bytes: int, shared: int) -> Tile:
    """Fewer stages, fewer columns, then fewer rows, until two tiles of rows and two of columns a stage fit."""
    while 2 * (tile.block_m + tile.block_n * tile.num_stages) * row_bytes > shared:
        if tile.num_stages > 1:
            tile = replace(tile, num_stages=tile.num_stages - 1)
        elif tile.block_n > 16:
            tile = replace(tile, block_n=tile.block_n // 2)
        elif tile.block_m > 16:
            tile = replace(tile, block_m=tile.block_m // 2)
        else:
            break
    return tile


def _listed(one: Pass, extent: Extent) -> int:
    """About how long the list of rows is; LONG_WALK at most where a tensor names them."""
    if not isinstance(one.rows, Listed):
        return 0
    tokens = one.rows.tokens
    return len(tokens.values) if not tokens.tensors else min(extent.rows[1] - extent.rows[0], LONG_WALK)


def _columns_seen(one: Pass, extent: Extent) -> int:
    """Columns that a row walks over, about and in the mean."""
    return int(sum(_walked(walk, one, extent) for walk in one.walks))


def _walked(walk: Walk, one: Pass, extent: Extent) -> float:
    first, stop = extent.columns
    match walk.keys:
        case Affine() | Runs() as keys:
            known: dict[str, Any] = {"u0": _rows(one, extent), "kv_len": extent.kv_len, "c": 0, "h": 0, "b": 0}
            known |= {"u1": known["u0"], "num_heads": 1, "batch_size": 1}
            ends = [_integer(keys.coordinate(Sym("x")), {**known, "x": np.asarray(x)}) for x in (first, stop)]
            known |= {"begin": ends[0], "last": ends[1] - 1}
            seen = sum(_length(r.lo, r.hi, known) for r in walk.ranges)
            return min(seen, LONG_WALK) if _in_documents(walk) else seen
        case Listed(tokens):
            return len(tokens.values) if not tokens.tensors else LONG_WALK
        case Box(shape, _, ranges):
            return float(np.prod([_along(*axis) for axis in zip(ranges, shape, strict=True)]))
        case Blocks(RandomTable() as table, size):
            return min(table.count * size, stop - first)
    return min(stop - first, LONG_WALK)


def _in_documents(walk: Walk) -> bool:
    return any(isinstance(clamp, SegmentClamp | FrameClamp) for clamp in walk.clamps)


def _along(one: Range, length: int) -> float:
    """Columns that a row in the middle of an axis sees along it."""
    middle = np.asarray(length // 2)
    lo, hi = axis_ends(one, middle, middle, length)
    return float(np.maximum(hi - lo + 1, 0))


def _rows(one: Pass, extent: Extent) -> IntArray:
    """Coordinates of some rows, from the first to the last."""
    positions = np.linspace(extent.rows[0], max(extent.rows[1] - 1, extent.rows[0]), SAMPLES).astype(np.int64)
    if isinstance(one.rows, Affine | Runs):
        return _integer(one.rows.coordinate(Sym("x")), {"x": positions, "c": 0})
    return positions


def _length(lo: Expr, hi: Expr, known: dict[str, Any]) -> float:
    if any(isinstance(part, Read) for end in (lo, hi) for part in subexpressions(end)):
        return LONG_WALK
    first = np.maximum(_integer(lo, known), known["begin"])
    last = np.minimum(_integer(hi, known), known["last"])
    return float(np.maximum(last - first + 1, 0).mean())


def _integer(expr: Expr, known: dict[str, Any]) -> IntArray:
    return np.asarray(evaluate(expr, known, NOTHING), np.int64)
