"""What each pass of a plan is predicted to cost: the tile that is chosen for it, and those that are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spattn.analysis.calls import Call
from spattn.analysis.explanation import Candidate, Cost
from spattn.analysis.reasons import reason
from spattn.codegen.tile import Tile
from spattn.cost.choice import predicted, ranked
from spattn.cost.prediction import Prediction
from spattn.cost.sizes import Sizes
from spattn.cost.tile_choice import Asked, sizes_of, tiles_of
from spattn.errors import SpattnError
from spattn.expressions.nodes import DocumentBound, GivenTable, ListedTable
from spattn.expressions.tensors import Tensors
from spattn.gpu.tile_records import Measured
from spattn.layout.ir import Blocks, FrameClamp, Layout, Pass, SegmentClamp, Walk

SHOWN = 4
MEASURED = "it was measured, and none that was tried is faster"


@dataclass(frozen=True)
class Costed:
    """A pass with its tile.

    Attributes:
        tile: The tile that a call of these lengths is run with.
        cost: Nothing where earlier passes own every row.
    """

    tile: Tile
    cost: Cost | None


def costs(asked: Asked, call: Call, measured: Measured | None) -> list[Costed]:
    """Of each pass of a question about this call, with the tiles that were measured, where some were."""
    usual = sizes_of(asked.shape, asked.count, asked.tokens)
    known = replace(usual, **_known(asked.layout, call))
    tiles = measured.tiles if measured else tiles_of(asked)
    passes = zip(asked.layout.passes, tiles, strict=True)
    reached = [_costed(one, tile, usual, known, asked) for one, tile in passes]
    return [_as_measured(one) for one in reached] if measured else reached


def _as_measured(found: Costed) -> Costed:
    return replace(found, cost=found.cost and replace(found.cost, reason=MEASURED))


def _costed(one: Pass, tile: Tile, usual: Sizes, known: Sizes, asked: Asked) -> Costed:
    """What is chosen knows no data; what is predicted does."""
    if one.skips(*usual.rows) or not usual.q_len * usual.num_keys * usual.count:
        return Costed(tile, None)
    device, order = asked.device, ranked(one, usual.bucketed(), asked.device, asked.languages)
    others = [each for each in _different(order) if each.tile != tile]
    found = [predicted(one, known, each, device) for each in (tile, *(each.tile for each in others))][:SHOWN]
    chosen = predicted(one, usual.bucketed(), tile, device)
    best, work = found[0], found[0].work
    return Costed(
        tile,
        Cost(
            tile=str(tile),
            microseconds=rounded(best.total),
            reason=reason(chosen, others, device),
            bound=best.bound,
            programs=work.programs,
            resident=best.resident,
            splits=tile.splits,
            pairs=round(work.pairs),
            flops=round(work.flops),
            loaded=round(work.loaded),
            moved=round(work.moved + work.split_bytes),
            launches=work.launches,
            candidates=tuple(Candidate(str(one.tile), rounded(one.total)) for one in found),
        ),
    )


def _different(order: tuple[Prediction, ...]) -> list[Prediction]:
    """The best, and the best of other tiles: of one with several splits its best number."""
    first = {replace(one.tile, splits=1): one for one in reversed(order)}
    return sorted(first.values(), key=order.index)[:SHOWN]


def rounded(microseconds: float) -> float:
    """To four digits."""
    return float(f"{microseconds:.4g}")


def _known(layout: Layout, call: Call) -> dict[str, Any]:
    """What the call's tensors say of documents and tables; nothing where there are none."""
    reads = Tensors(call.tensors, call.kv_len, call.batch_size, call.num_heads, call.q_len)
    found: dict[str, Any] = {}
    for walk in (walk for one in layout.passes for walk in one.walks):
        try:
            found |= _of_documents(walk, reads, call.kv_len) | _of_table(walk, call)
        except SpattnError:  # a tensor that is not given
            continue
    return found


def _of_documents(walk: Walk, reads: Tensors, kv_len: int) -> dict[str, Any]:
    for clamp in walk.clamps:
        if isinstance(clamp, SegmentClamp | FrameClamp) and reads.names.issuperset(clamp.documents.tensors) and kv_len:
            bounds = (DocumentBound(clamp.documents, "keys", "keys", end) for end in ("start", "stop"))
            start, stop = map(reads.document_bounds, bounds)
            return {"document": max(int((stop - start).mean()), 1)}
    return {}


def _of_table(walk: Walk, call: Call) -> dict[str, Any]:
    match walk.keys:
        case Blocks(GivenTable(name), size) if name in call.tensors:
            marks = np.asarray(call.tensors[name])
            return {"listed": max(int(marks.astype(bool).mean() * marks.shape[-1] * size), 1)} if marks.size else {}
        case Blocks(ListedTable(name), size) if name in call.tensors:
            counts = np.asarray(call.tensors[name])[..., :1]
            return {"listed": max(int(counts.mean() * size), 1)} if counts.size else {}
    return {}
