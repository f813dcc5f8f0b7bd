"""A mask as a grid of cells, none of which needs the mask: exact while it is small, counted along lines beyond.

A *line* is one query with all keys, or one key with all queries. How many pairs it has in each cell is counted exactly,
between cuts and periods; which lines of a cell are looked at is the sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spattn.analysis.placement import unusual
from spattn.analysis.samples import sample_tensors
from spattn.call.positions import standing
from spattn.errors import UnsupportedError
from spattn.expressions.algebra import conj, lt, subexpressions, substitute_bool
from spattn.expressions.evaluation import BoolArray, IntArray, evaluate
from spattn.expressions.nodes import Bool, K, Member, RandomTable, Sym
from spattn.expressions.tensors import Tensors
from spattn.layout.planner import swapped
from spattn.pattern import Pattern
from spattn.philox import random_blocks
from spattn.relation.frames import points, without_frames
from spattn.relation.keys import NoForm
from spattn.relation.rows import KeyForm, Rows

FloatArray = NDArray[np.float64]
MAX_EXACT = 1 << 23  # pairs looked at one by one
BAND = 1 << 20  # of them at a time
LINES = 6  # of each cell
MAX_LENGTH = 1 << 40


@dataclass(frozen=True)
class Cells:
    """Which part of each cell is allowed.

    Attributes:
        fraction: `[rows, columns]`, 0 to 1; an estimate unless `how` is "exact".
        touched: Some pair is allowed, for certain.
        full: Every pair that was looked at is allowed.
        rows, columns: Where cells begin, and where the last one ends; rows count from the first query, columns are
            positions of the keys that are given.
        how: "exact", "lines" or "points".
        sampled: The pattern's tensors are examples.
        placement: Where the call's rows and keys stand, in words, where that is not as usual.
    """

    fraction: FloatArray
    touched: BoolArray
    full: BoolArray
    rows: IntArray
    columns: IntArray
    how: str
    sampled: bool
    placement: tuple[str, ...] = ()

    @property
    def single(self) -> bool:
        """Is each cell one pair?"""
        return bool((np.diff(self.rows) == 1).all() and (np.diff(self.columns) == 1).all())


@dataclass(frozen=True)
class _Call:
    """One head of a call whose queries begin at position `first`, and its keys, half-open, at `given`."""

    first: int
    q_len: int
    given: tuple[int, int]
    env: dict[str, int]
    tensors: Tensors


def cells(
    pattern: Pattern,
    q_len: int,
    kv_len: int | None,
    most: int,
    head: int = 0,
    batch: int = 0,
    *,
    q_offset: int | None = None,
    k_offset: int = 0,
    num_keys: int | None = None,
) -> Cells:
    """The mask of one head, of rows and given keys, in at most `most` x `most` cells.

    Args:
        pattern: Of which.
        q_len: Number of queries.
        kv_len: Keys of the whole; as `call.positions.standing` has it where it is not given.
        most: Cells along a side.
        head: Which head.
        batch: Which batch entry.
        q_offset: Position of the first query; the last stands at the last key of the whole where it is not given.
        k_offset: Position of the first key that is given.
        num_keys: How many are given; all up to the last of the whole where it is not said.

    Raises:
        ArgumentError: E060, a length or a position is none.
        UnsupportedError: E094, too long for the example tensors that the pattern needs.
    """
    at = standing(q_len, kv_len, q_offset=q_offset, k_offset=k_offset, num_keys=num_keys)
    first, kv_len = at.q_offset, at.kv_len
    longest = max(q_len, kv_len, abs(first), abs(first + q_len))
    if longest > MAX_LENGTH:
        raise UnsupportedError("E094", f"{longest} tokens are more than a picture shows: {MAX_LENGTH}")
    condition, names = pattern.condition, pattern.free_names
    examples = sample_tensors(condition, names, kv_len, q_len=q_len)
    tensors = _SparseTensors(examples, kv_len, batch + 1, head + 1, q_len)
    env = {"h": head, "b": batch, "kv_len": kv_len, "num_heads": head + 1, "batch_size": batch + 1, "q_offset": first}
    call = _Call(first, q_len, at.given, env, tensors)
    rows, columns = _edges(q_len, most), at.k_offset + _edges(at.num_keys, most)
    if q_len * at.num_keys <= MAX_EXACT:
        found = _exact(condition, call, rows, columns)
    else:
        found = _along_lines(condition, call, rows, columns) or _at_points(condition, call, rows, columns)
    words = tuple(unusual(q_len, first, at.k_offset, at.num_keys, kv_len))
    return replace(found, sampled=bool(names), placement=words)


def _edges(length: int, most: int) -> IntArray:
    count = min(length, most)
    return (np.arange(count + 1, dtype=np.int64) * length) // max(count, 1)


def _exact(condition: Bool, call: _Call, rows: IntArray, columns: IntArray) -> Cells:
    allowed = np.zeros((len(rows) - 1, len(columns) - 1))
    keys = np.arange(*call.given)[None, :]
    step = max(BAND // max(keys.size, 1), 1)
    for begin in range(0, call.q_len, step):
        row = np.arange(begin, min(begin + step, call.q_len))
        env = {**call.env, "q": call.first + row[:, None], "k": keys}
        mask = np.broadcast_to(evaluate(condition, env, call.tensors), (len(row), keys.size))
        band = np.add.reduceat(mask, columns[:-1] - call.given[0], axis=1, dtype=np.int64)
        np.add.at(allowed, np.searchsorted(rows, row, side="right") - 1, band)
    fraction = allowed / (np.diff(rows)[:, None] * np.diff(columns)[None, :])
    return Cells(fraction, allowed > 0, fraction == 1.0, rows, columns, "exact", False)


def _along_lines(condition: Bool, call: _Call, rows: IntArray, columns: IntArray) -> Cells | None:
    """By queries and by keys: neither alone sees what the other's lines are wont to miss."""
    try:
        by_query = _counted(condition, call, rows + call.first, columns)
        # edges are counted from position 0 on
        by_key = _counted(swapped(condition), call, columns, rows + call.first) if call.first >= 0 else None
    except NoForm:
        return None
    if by_key is None:
        fraction, touched, full = by_query
    else:
        fraction = (by_query[0] + by_key[0].T) / 2
        touched, full = by_query[1] | by_key[1].T, by_query[2] & by_key[2].T
    return Cells(fraction, touched, full, rows, columns, "lines", False)


def _counted(condition: Bool, call: _Call, lines: IntArray, edges: IntArray) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Fraction, touched, full `[lines, cells]`; lines are positions of the condition's q, edges positions of its k.

    Raises:
        NoForm: The condition has no cuts and periods.
    """
    stop = int(edges[-1])
    span = Rows(int(lines[0]), 0, stop, call.env, call.tensors)
    plain = without_frames(_as_points(condition), span)
    chosen, place = _lines(lines, _named(condition))
    form = KeyForm.of(conj(plain, lt(K, Sym("edge"))), stop)
    q = np.repeat(chosen, len(edges))
    before = form.counts(q, replace(span, env={**call.env, "edge": np.tile(edges, len(chosen))[:, None]}))
    inside = np.diff(before.reshape(len(chosen), len(edges)), axis=1)
    width = np.diff(edges)[None, :]
    total, times = np.zeros((len(lines) - 1, len(edges) - 1)), np.bincount(place, minlength=len(lines) - 1)[:, None]
    np.add.at(total, place, inside / width)
    full = np.ones(total.shape, np.bool_)
    np.logical_and.at(full, place, inside == width)
    return total / times, total > 0, full


def _lines(edges: IntArray, named: IntArray) -> tuple[IntArray, IntArray]:
    """The lines looked at, first and last of each cell among them, and each one's cell."""
    begin, width = edges[:-1, None], np.diff(edges)[:, None]
    spread = begin + (np.arange(LINES) * np.maximum(width - 1, 0)) // (LINES - 1)
    named = named[(named >= edges[0]) & (named < edges[-1])]
    chosen = np.unique(np.concatenate([spread.ravel(), named]))
    return chosen, np.searchsorted(edges, chosen, side="right") - 1


def _named(condition: Bool) -> IntArray:
    """Tokens that the pattern names: lines that a sample would miss."""
    values = [v for part in subexpressions(condition) if isinstance(part, Member) for v in part.tokens.values]
    return np.asarray([v for v in values if v >= 0], np.int64)


def _as_points(condition: Bool) -> Bool:
    """Lists of constants as comparisons."""
    lists = [p for p in subexpressions(condition) if isinstance(p, Member) and not p.tokens.tensors]
    return substitute_bool(condition, {p: points(p.position, p.tokens.values, p.length) for p in lists})


def _at_points(condition: Bool, call: _Call, rows: IntArray, columns: IntArray) -> Cells:
    """Some pairs of each cell: whatever is thinner may be missed."""
    q, row = _lines(rows + call.first, _named(condition))
    k, column = _lines(columns, _named(condition))
    env = {**call.env, "q": q[:, None], "k": k[None, :]}
    mask = np.broadcast_to(evaluate(condition, env, call.tensors), (len(q), len(k)))
    found, times = np.zeros((len(rows) - 1, len(columns) - 1)), np.zeros((len(rows) - 1, len(columns) - 1))
    place = np.broadcast_arrays(row[:, None], column[None, :])
    np.add.at(found, place, mask)
    np.add.at(times, place, 1)
    return Cells(found / times, found > 0, found == times, rows, columns, "points", False)


class _SparseTensors(Tensors):
    """Tensors of a call of which few queries are looked at: random blocks are drawn for these alone."""

    def in_random(self, table: RandomTable, key_blocks: int, row: IntArray, column: IntArray, env: Any) -> BoolArray:
        """Is block `column` among those drawn for block `row`?"""
        head = int(np.max(env["h"]))
        blocks, where = np.unique(row, return_inverse=True)
        drawn = random_blocks(table.count, table.seed, table.past, key_blocks, np.asarray([head]), blocks)[0]
        drawn = drawn[where.reshape(row.shape)]
        return np.asarray((drawn == column[..., None]).any(-1) & (column >= 0) & (column < key_blocks))
