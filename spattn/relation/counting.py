"""How many pairs a condition allows, exactly, without a mask: keys are counted row by row from cuts and periods.

The work follows the rows, not the pairs: 65536 x 65536 takes milliseconds. What has no cuts, token lists and tables of
blocks, is false first; the pairs that it names are then looked at one by one. (isl counts too, but it enumerates: dense
causal at a million tokens takes it seconds.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from spattn.expressions.algebra import conj, le, lt, negate, subexpressions, substitute_bool, symbols
from spattn.expressions.evaluation import IntArray
from spattn.expressions.nodes import (
    FALSE,
    TRUE,
    BitTable,
    Bool,
    GivenTable,
    InTable,
    K,
    ListedTable,
    Member,
    RandomTable,
    Read,
    Relative,
    SameSegment,
)
from spattn.expressions.tensors import Tensors
from spattn.oracle import is_spread
from spattn.relation.frames import without_frames
from spattn.relation.grids import on_grid
from spattn.relation.keys import NoForm
from spattn.relation.listed import add_listed, listed_pairs, listing, row_lists
from spattn.relation.rows import KeyForm, Rows
from spattn.relation.spells import sum_of_rows

NOTHING: Mapping[str, Any] = MappingProxyType({})


def count(
    condition: Bool,
    q_len: int,
    kv_len: int,
    tensors: Mapping[str, Any] | None = None,
    q_offset: int | None = None,
    num_heads: int = 1,
    batch_size: int = 1,
    given: tuple[int, int] | None = None,
) -> int | None:
    """Allowed pairs over all heads and batch entries, as the mask has them: of one where they cannot differ.

    Args:
        condition: Which pairs are allowed.
        q_len: Number of queries.
        kv_len: Number of keys of the whole.
        tensors: An array for each free name.
        q_offset: Position of the first query; the last stands at the last key where it is not given.
        num_heads: Number of query heads.
        batch_size: Number of batch entries.
        given: Positions of the keys that are given, half-open; all of the whole where it is not said.

    Returns:
        The number, or None where the condition has no cuts and periods.
    """
    calls = entries(condition, q_len, kv_len, tensors, q_offset, num_heads, batch_size)
    if given is not None and given != (0, kv_len):
        condition = conj(condition, le(given[0], K), lt(K, given[1]))
    try:
        return sum(times * _pairs_counted(condition, rows) for rows, times in calls)
    except NoForm:
        return None


def row_counts(
    condition: Bool,
    q_len: int,
    kv_len: int,
    tensors: Mapping[str, Any] | None = None,
    q_offset: int | None = None,
) -> IntArray | None:
    """Allowed keys of each row of head 0 and batch entry 0, `[q_len]`; None where there are no cuts and periods."""
    (rows, _), *_ = entries(condition, q_len, kv_len, tensors, q_offset, 1, 1)
    try:
        return _rows_counted(condition, rows)
    except NoForm:
        return None


def entries(
    condition: Bool,
    q_len: int,
    kv_len: int,
    tensors: Mapping[str, Any] | None,
    q_offset: int | None,
    num_heads: int,
    batch_size: int,
) -> list[tuple[Rows, int]]:
    """The heads and batch entries that may differ, and how many of the mask each stands for."""
    given = Tensors(tensors or NOTHING, kv_len, batch_size, num_heads, q_len)
    first = kv_len - q_len if q_offset is None else q_offset
    lengths = {"kv_len": kv_len, "q_offset": first, "num_heads": num_heads, "batch_size": batch_size}
    if not is_spread(condition, given):
        num_heads = batch_size = 1
    by_head, by_entry = _spread(condition)
    heads, batch = (num_heads if by_head else min(num_heads, 1)), (batch_size if by_entry else min(batch_size, 1))
    times = num_heads * batch_size // max(heads * batch, 1)
    pairs = itertools.product(range(batch), range(heads))
    return [(Rows(first, q_len, kv_len, {**lengths, "b": b, "h": h}, given), times) for b, h in pairs]


def _spread(condition: Bool) -> tuple[bool, bool]:
    """May heads differ, may batch entries? Without symbols, tensors and tables they cannot."""
    names, parts = symbols(condition), subexpressions(condition)
    random = any(isinstance(part, InTable) and isinstance(part.table, RandomTable) for part in parts)
    tensors = any(_is_tensor(part) for part in parts)
    return "h" in names or random or tensors, "b" in names or tensors


def _is_tensor(part: object) -> bool:
    match part:
        case Read() | SameSegment() | Relative() | InTable(GivenTable() | ListedTable() | BitTable(), _, _):
            return True
        case Member(_, tokens, _):
            return bool(tokens.tensors)
    return False


def _pairs_counted(condition: Bool, rows: Rows) -> int:
    condition = without_frames(condition, rows)
    grid = _grid_counted(condition, rows)
    if grid is not None:
        return grid
    rest, total = condition, 0
    try:
        for guard in [*listing(rest), *row_lists(rest)]:
            rest, gained, lost = _apart(rest, guard)
            total += listed_pairs(guard, gained, lost, rows)
    except NoForm:
        return int(_rows_counted(condition, rows).sum())
    keys = KeyForm.of(rows.known(rest), rows.kv_len)
    found = sum_of_rows(keys, rows)
    return total + (int(_added(keys, rows).sum()) if found is None else found)


def _grid_counted(condition: Bool, rows: Rows) -> int | None:
    """The pairs of a product over the axes of a grid, all of which lies in the call."""
    grid = on_grid(condition)
    size = 0 if grid is None else math.prod(grid.shape)
    if grid is None or rows.first > 0 or rows.first + rows.q_len < size or rows.kv_len < size:
        return None
    axes = (replace(rows, first=0, q_len=n, kv_len=n, tables={}) for n in grid.shape)
    return math.prod(_pairs_counted(axis, there) for axis, there in zip(grid.axes, axes, strict=True))


def _apart(condition: Bool, guard: Bool) -> tuple[Bool, Bool, Bool]:
    """A condition where `guard` is false; the pairs allowed because of it; those forbidden because of it."""
    with_guard, without = (substitute_bool(condition, {guard: truth}) for truth in (TRUE, FALSE))
    return without, conj(with_guard, negate(without)), conj(without, negate(with_guard))


def _rows_counted(condition: Bool, rows: Rows) -> IntArray:
    total = np.zeros(rows.q_len, np.int64)
    condition = without_frames(condition, rows)
    for guard in listing(condition):
        condition, gained, lost = _apart(condition, guard)
        add_listed(guard, gained, lost, rows, total)
    return total + _added(KeyForm.of(rows.known(condition), rows.kv_len), rows)


def _added(keys: KeyForm, rows: Rows) -> IntArray:
    total = np.zeros(rows.q_len, np.int64)
    keys.add_to(total, rows)
    return total
