"""Clamps at a call: the positions that documents and lengths leave to each tile of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spattn.expressions.evaluation import BoolArray, IntArray
from spattn.expressions.nodes import Read, Sym
from spattn.layout.ir import Clamp, FrameClamp, LimitClamp, SegmentClamp
from spattn.layout.launch import Call
from spattn.layout.tiles import NOWHERE, Tiles
from spattn.relation.bounds import Range


@dataclass(frozen=True)
class Reach:
    """Positions [tiles]: first and last that some row may see, and of those that the clamp leaves to every row."""

    first: IntArray
    last: IntArray
    full_first: IntArray
    full_last: IntArray


def reach(clamp: Clamp, tiles: Tiles, call: Call) -> Reach:
    """What a clamp leaves to each tile."""
    match clamp:
        case LimitClamp(last):
            value = np.broadcast_to(call.integer(last), (len(tiles.rows),))
            low = np.full_like(value, -NOWHERE)
            return Reach(low, value, low, value)
        case SegmentClamp(ids):
            return _segment(ids, tiles, call).reach
        case FrameClamp(ids, inner):
            return _frame(inner, _segment(ids, tiles, call), tiles, call)
    raise AssertionError(clamp)


@dataclass(frozen=True)
class _Segment:
    """Documents of each tile's rows: first and last position, the run that holds all rows, and whether that is whole.

    A document's positions need not be adjacent: first and last are its occurrences, a run is adjacent.
    """

    reach: Reach
    single: BoolArray


def _segment(ids: str, tiles: Tiles, call: Call) -> _Segment:
    placed = tiles.valid & (tiles.rows >= 0) & (tiles.rows < call.kv_len)
    where = np.clip(tiles.rows, 0, max(call.kv_len - 1, 0))

    def read(name: str) -> IntArray:
        if not call.kv_len:
            return np.zeros_like(where)
        return call.integer(Read(f"{ids}.{name}", (Sym("x"),)), x=where)

    start, last = read("start"), read("stop") - 1
    first, final = np.where(placed, start, NOWHERE).min(1), np.where(placed, last, -NOWHERE).max(1)
    everyone = (placed == tiles.valid).all(1)
    run_first = np.where(placed, read("run_start"), -NOWHERE).max(1)
    run_last = np.where(everyone, np.where(placed, read("run_stop") - 1, NOWHERE).min(1), -NOWHERE)
    one_run = np.where(placed, read("run_start"), NOWHERE).min(1) == run_first
    run_last = np.where(one_run, run_last, -NOWHERE)
    # a frame is counted from the document's first position
    whole = (run_first == first) & (run_last == final)
    return _Segment(Reach(first, final, run_first, run_last), everyone & one_run & whole)


def _frame(r: Range, segment: _Segment, tiles: Tiles, call: Call) -> Reach:
    first, last = segment.reach.first, segment.reach.last
    q0, q1 = tiles.ends(tiles.rows)
    length = last - first + 1
    env = {"u0": q0 - first, "u1": q1 - first, "kv_len": length, "begin": np.zeros_like(first), "last": length - 1}
    lo, hi, full_lo, full_hi = (first + call.integer(end, **env) for end in (r.lo, r.hi, r.full_lo, r.full_hi))
    single = segment.single
    return Reach(
        np.where(single, lo, first),
        np.where(single, hi, last),
        np.where(single, full_lo, 0),
        np.where(single, full_hi, -1),
    )
