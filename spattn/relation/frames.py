"""Documents and short token lists written as comparisons: what cuts can be found in."""

from __future__ import annotations

from collections.abc import Sequence

from spattn.expressions.algebra import (
    add,
    conj,
    disj,
    document_end,
    eq,
    is_about_pair,
    le,
    lt,
    negate,
    pair_of,
    query_index,
    relative_inner,
)
from spattn.expressions.evaluation import IntArray
from spattn.expressions.nodes import (
    KV_LEN,
    TRUE,
    And,
    Bool,
    DocumentBound,
    Expr,
    K,
    Member,
    Not,
    Or,
    Q,
    Read,
    Relative,
    SameSegment,
)
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
        case SameSegment() if is_about_pair(condition):
            return _interval_of_document(condition, rows)
        case Member(position, tokens, length) if not tokens.tensors and len(tokens.values) <= MAX_POINTS:
            return points(position, tokens.values, length)
    return condition


def points(position: Expr, values: Sequence[int], length: Expr) -> Bool:
    """Membership in constant tokens as comparisons."""
    from_start = (conj(eq(position, value), lt(value, length)) for value in values if value >= 0)
    from_end = (conj(eq(position, add(length, value)), le(0, position)) for value in values if value < 0)
    return disj(*from_start, *from_end)


def _interval_of_document(test: SameSegment, rows: Rows) -> Bool:
    """The keys of a row's document, where the documents of all rows are runs."""
    documents = test.documents
    by_query = pair_of(test) == (Q, K) or not documents.two_sided
    side, other = ("queries", "keys") if by_query else ("keys", "queries")
    index = query_index(documents, Q) if by_query else Q
    start, stop, run_start, run_stop = (
        document_end(documents, other, side, end, index) for end in ("start", "stop", "run_start", "run_stop")
    )
    for end, run in ((start, run_start), (stop, run_stop)):
        if (_entry(end, rows) != _entry(run, rows)).any():
            raise NoForm  # a document in several runs
    column = K if by_query else query_index(documents, K)
    # a query that is no position of a key is of no document
    placed = conj(le(0, Q), lt(Q, KV_LEN)) if not documents.two_sided else TRUE
    return conj(placed, le(start, column), lt(column, stop))


def _entry(end: Read, rows: Rows) -> IntArray:
    """The array behind an end of documents, of the batch entry that is looked at."""
    assert isinstance(end.tensor, DocumentBound)
    found = rows.tensors.document_bounds(end.tensor)
    return found[rows.env["b"]] if found.ndim > 1 else found
