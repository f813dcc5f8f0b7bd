"""What each pass of a plan is predicted to cost: the tile that is chosen for it, and those that are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spattn.analysis.calls import Call
from spattn.analysis.explanation import Candidate, Cost
from spattn.analysis.reasons import reason
from spattn.backends.triton.cost.choice import predicted, ranked
from spattn.backends.triton.cost.keeping import Keeping, keepings
from spattn.backends.triton.cost.prediction import Prediction
from spattn.backends.triton.cost.sizes import Sizes
from spattn.backends.triton.tiles import Device, Tile
from spattn.errors import SpattnError
from spattn.expressions.nodes import DocumentBound, GivenTable
from spattn.expressions.tensors import Tensors
from spattn.layout.ir import Blocks, FrameClamp, Layout, Pass, SegmentClamp, Walk

SHOWN = 4
ITEMSIZE = 2


@dataclass(frozen=True)
class Costed:
    """A pass with its tile.

    Attributes:
        tile: The tile that a call of these lengths is run with.
        cost: Nothing where earlier passes own every row.
    """

    tile: Tile
    cost: Cost | None


def costs(layout: Layout, members: int, call: Call, head_dim: int, device: Device) -> list[Costed]:
    """Of each pass, for `members` (batch, head) pairs."""
    usual = usual_sizes(members, call, head_dim)
    known = replace(usual, **_known(layout, call))
    passes = zip(layout.passes, keepings(layout), strict=True)
    return [_costed(one, keeping, usual, known, device) for one, keeping in passes]


def usual_sizes(members: int, call: Call, head_dim: int) -> Sizes:
    """What is known of a call without its tensors."""
    return Sizes(call.q_len, call.kv_len, call.kv_len - call.q_len, members, 1, head_dim, ITEMSIZE)


def _costed(one: Pass, keeping: Keeping, usual: Sizes, known: Sizes, device: Device) -> Costed:
    """What is chosen knows no data; what is predicted does."""
    order = ranked(one, usual.bucketed(), device)
    tile = order[0].tile
    if one.skips(usual.first, usual.first + usual.q_len) or not usual.q_len * usual.kv_len * usual.count:
        return Costed(tile, None)
    considered = _different(order)
    found = [predicted(one, known, each.tile, device, keeping) for each in considered]
    best, work = found[0], found[0].work
    return Costed(
        tile,
        Cost(
            tile=str(tile),
            microseconds=rounded(best.total),
            reason=reason(considered[0], considered[1:], device),
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
    return {}
