"""Documents and short token lists written as comparisons: what cuts can be found in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spattn.expressions.algebra import add, conj, disj, eq, le, lt, negate, relative_inner
from spattn.expressions.nodes import KV_LEN, And, Bool, Expr, K, Member, Not, Or, Q, Read, Relative, SameSegment
from spattn.relation.keys import NoForm
from spattn.relation.rows import Rows

MAX_POINTS = 8  # tokens that are written as comparisons; more are looked up


def without_frames(condition: Bool, rows: Rows) -> Bool:
    """Documents that are runs become intervals, positions counted from their start absolute ones, few tokens points."""

    def replaced(node: Bool) -> Bool:
        return without_frames(node, rows)

    match condition:
        case And(args):
            return conj(*map(replaced, args))
        case Or(args):
            return disj(*map(replaced, args))
        case Not(arg):
            return negate(replaced(arg))
        case Relative():
            return replaced(relative_inner(condition))
        case SameSegment(ids, left, right) if {left, right} == {Q, K}:
            return _interval_of_document(ids, rows)
        case Member(position, tokens, length) if not tokens.tensors and len(tokens.values) <= MAX_POINTS:
            return points(position, tokens.values, length)
    return condition


def points(position: Expr, values: Sequence[int], length: Expr) -> Bool:
    """Membership in constant tokens as comparisons."""
    from_start = (conj(eq(position, value), lt(value, length)) for value in values if value >= 0)
    from_end = (conj(eq(position, add(length, value)), le(0, position)) for value in values if value < 0)
    return disj(*from_start, *from_end)


def _interval_of_document(ids: str, rows: Rows) -> Bool:
    documents = rows.tensors.document_ids(ids)
    one = documents[rows.env["b"] if len(documents) > 1 else 0] if documents.ndim > 1 else documents
    changes = int((one[1:] != one[:-1]).sum())
    if len(one) and changes + 1 != len(np.unique(one)):
        raise NoForm  # a document in several runs
    start, stop = Read(f"{ids}.start", (Q,)), Read(f"{ids}.stop", (Q,))
    return conj(le(0, Q), lt(Q, KV_LEN), le(start, K), lt(K, stop))
