"""Clamps at a call: the positions that documents and lengths leave to each tile of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spattn.expressions.algebra import document_end
from spattn.expressions.evaluation import BoolArray, IntArray
from spattn.expressions.nodes import Documents, Sym
from spattn.layout.call import Call
from spattn.layout.ir import Clamp, FrameClamp, LimitClamp, SegmentClamp
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
        case SegmentClamp(documents, rows):
            return _segment(documents, rows, tiles, call).reach
        case FrameClamp(documents, rows, inner):
            return _frame(inner, _segment(documents, rows, tiles, call), tiles, call)
    raise AssertionError(clamp)


@dataclass(frozen=True)
class _Segment:
    """Documents of each tile's rows: first and last column, the run that all rows share, and the frame of a single one.

    A document's columns need not be adjacent: first and last are its occurrences, a run is adjacent.

    Attributes:
        single: Are all rows of one document, whose columns are one run?
        row, column: Where the frame of that document counts rows and columns from.
        length: Of the frame.
        begin: Its first column.
    """

    reach: Reach
    single: BoolArray
    row: IntArray
    column: IntArray
    length: IntArray
    begin: IntArray


def _segment(documents: Documents, rows: str, tiles: Tiles, call: Call) -> _Segment:
    columns = "keys" if rows == "queries" else "queries"
    ends = _Ends(documents, rows, tiles, call)
    start, stop, placed = ends.of(columns, "start"), ends.of(columns, "stop"), ends.placed
    if not documents.plain:
        placed = placed & (start < stop)
    first, last = np.where(placed, start, NOWHERE).min(1), np.where(placed, stop - 1, -NOWHERE).max(1)
    everyone = (placed == tiles.valid).all(1)
    run_start, run_stop = ends.of(columns, "run_start"), ends.of(columns, "run_stop")
    run_first = np.where(placed, run_start, -NOWHERE).max(1)
    run_last = np.where(everyone, np.where(placed, run_stop - 1, NOWHERE).min(1), -NOWHERE)
    one_run = np.where(placed, run_start, NOWHERE).min(1) == run_first
    run_last = np.where(one_run, run_last, -NOWHERE)
    # a frame is counted from the document's first position
    whole = (run_first == first) & (run_last == last)
    reach = Reach(first, last, run_first, run_last)
    own_start, own_stop = (np.where(placed, ends.of(rows, end), -NOWHERE).max(1) for end in ("start", "stop"))
    return _Segment(reach, everyone & one_run & whole, *_origin(documents, rows, reach, own_start, own_stop))


def _origin(
    documents: Documents, rows: str, reach: Reach, own_start: IntArray, own_stop: IntArray
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """(row, column, length, begin) of a frame whose rows are `own_start` to before `own_stop`."""
    first, columns = reach.first, reach.last - reach.first + 1
    if not documents.two_sided:
        return first, first, columns, np.zeros_like(first)
    if rows == "queries":
        return own_stop - columns, first, columns, np.zeros_like(first)
    # the last query stands at the last key
    length = own_stop - own_start
    return own_start, reach.last + 1 - length, length, length - columns


@dataclass(frozen=True)
class _Ends:
    """Ends of the documents of each row, as positions [tiles, BLOCK_M].

    Attributes:
        placed: May the row be of a document?
    """

    documents: Documents
    rows: str
    tiles: Tiles
    call: Call

    @property
    def placed(self) -> BoolArray:
        rows, valid = self.tiles.rows, self.tiles.valid
        return valid if self.documents.two_sided else valid & (rows >= 0) & (rows < self.call.kv_len)

    def of(self, side: str, end: str) -> IntArray:
        """An end on a side."""
        index = self.tiles.rows
        if self.documents.two_sided and self.rows == "queries":
            index = index - self.call.q_offset
        found = self.call.integer(document_end(self.documents, side, self.rows, end, Sym("x")), x=index)
        return found + self.call.q_offset if self.documents.two_sided and side == "queries" else found


def _frame(r: Range, segment: _Segment, tiles: Tiles, call: Call) -> Reach:
    first, last, length = segment.reach.first, segment.reach.last, segment.length
    q0, q1 = tiles.ends(tiles.rows)
    env = {"u0": q0 - segment.row, "u1": q1 - segment.row, "kv_len": length, "begin": segment.begin, "last": length - 1}
    ends = (r.lo, r.hi, r.full_lo, r.full_hi)
    lo, hi, full_lo, full_hi = (segment.column + call.integer(end, **env) for end in ends)
    single = segment.single
    return Reach(
        np.where(single, lo, first),
        np.where(single, hi, last),
        np.where(single, full_lo, 0),
        np.where(single, full_hi, -1),
    )
