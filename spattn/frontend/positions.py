"""Sets of positions as conditions: `[0, 7, -1, 10:20, ::512, cls]` with Python's meaning of indices and slices."""

from __future__ import annotations

from itertools import pairwise

from spattn.errors import PatternError
from spattn.expressions.algebra import add, conj, disj, eq, le, lift, lt, maximum, mod, sub
from spattn.expressions.nodes import TRUE, Bool, Expr, Int, Member, Tokens
from spattn.frontend.spec import number
from spattn.frontend.syntax import IndexSet, Name, Slice

RUN = 16
"""From this many neighbours on, single indices are written as a slice: two comparisons instead of a search."""


def is_in(indices: IndexSet, position: Expr, length: Expr, before_end: Bool = TRUE) -> Bool:
    """Is `position` selected from a sequence of `length`? What lies before its start or past its end selects nothing.

    Args:
        indices: The set.
        position: Counted from 0.
        length: Of the sequence.
        before_end: `position < length`; TRUE where no position is past the end.
    """
    slices = [_in_slice(item, position, length, before_end) for item in indices.items if isinstance(item, Slice)]
    singles = sorted({number(item) for item in indices.items if not isinstance(item, Slice | Name)})
    tensors = tuple(dict.fromkeys(item.name for item in indices.items if isinstance(item, Name)))
    long, rest = _split_runs([value for value in singles if value >= 0])
    runs = [conj(le(first, position), le(position, last), before_end) for first, last in long]
    tokens = Tokens((*(value for value in singles if value < 0), *rest), tensors)
    members = [Member(position, tokens, length)] if tokens.values or tensors else []
    return disj(*slices, *runs, *members)


def is_offset(offsets: IndexSet, distance: Expr, length: Expr) -> Bool:
    """Is `distance` one of `offsets`? Constants are signed; those of a tensor count as positions do."""
    slices = [_in_range(item, distance) for item in offsets.items if isinstance(item, Slice)]
    singles = sorted({number(item) for item in offsets.items if not isinstance(item, Slice | Name)})
    tensors = tuple(dict.fromkeys(item.name for item in offsets.items if isinstance(item, Name)))
    long, rest = _split_runs(singles)
    runs = [conj(le(first, distance), le(distance, last)) for first, last in long]
    members = [Member(distance, Tokens((), tensors), length)] if tensors else []
    return disj(*slices, *runs, *(eq(distance, value) for value in rest), *members)


def _in_slice(item: Slice, position: Expr, length: Expr, before_end: Bool) -> Bool:
    low = _from_end(0 if item.start is None else number(item.start), length)
    conditions = [le(maximum(low, 0), position)]
    if item.stop is not None:
        conditions.append(lt(position, _from_end(number(item.stop), length)))
    if item.stop is None or number(item.stop) >= 0:
        conditions.append(before_end)
    return conj(*conditions, eq(mod(sub(position, maximum(low, 0)), _step(item)), 0))


def _from_end(value: int, length: Expr) -> Expr:
    return add(length, value) if value < 0 else Int(value)


def _in_range(item: Slice, distance: Expr) -> Bool:
    conditions: list[Bool] = []
    if item.start is not None:
        conditions.append(le(number(item.start), distance))
    if item.stop is not None:
        conditions.append(lt(distance, number(item.stop)))
    start = lift(0 if item.start is None else number(item.start))
    return conj(*conditions, eq(mod(sub(distance, start), _step(item)), 0))


def _step(item: Slice) -> int:
    step = 1 if item.step is None else number(item.step)
    if step < 1:
        message = f"the step of a slice is at least 1, not {step}"
        raise PatternError("E026", message, span=item.span, label="steps backwards or not at all")
    return step


def _split_runs(values: list[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Ascending `values` as (runs of at least RUN neighbours as first and last, the rest)."""
    cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(values)) if b != a + 1), len(values)]
    groups = [values[a:b] for a, b in pairwise(cuts)]
    runs = [(group[0], group[-1]) for group in groups if len(group) >= RUN]
    return runs, [value for group in groups if len(group) < RUN for value in group]
