"""Pairs that token lists and tables name: counted one by one, since nothing else allows or forbids them.

A guard G is replaced by false, and each pair that G names adds what G changes there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spattn.expressions.algebra import add, conj, le, lt, scale, sub, subexpressions, substitute_bool, symbols
from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.nodes import Bool, Expr, FloorDiv, Int, InTable, K, Member, Node, Q, Sym
from spattn.relation.frames import points
from spattn.relation.keys import NoForm, comparisons, position_of
from spattn.relation.rows import MAX_WORK, KeyForm, Rows, too_long

TOKENS = 64  # whose pairs are counted in one go
CELLS = 2**22  # pairs that are looked at in one go


def listing(condition: Bool) -> list[Bool]:
    """The atoms with k that name their pairs: token lists and tables."""
    return [atom for atom in comparisons(condition) if isinstance(atom, Member | InTable)]


def row_lists(condition: Bool) -> list[Member]:
    """The token lists that name rows."""
    return [part for part in subexpressions(condition) if isinstance(part, Member) and part.position == Q]


def listed_pairs(guard: Bool, gained: Bool, lost: Bool, rows: Rows) -> int:
    """What the pairs named by a token list gain and lose: each token's keys or rows are counted from cuts and periods.

    Raises:
        NoForm: The guard is no token list, or its pairs do not follow from its tokens.
    """
    if not isinstance(guard, Member) or symbols(guard.length) - {"kv_len"}:
        raise NoForm
    tokens = _tokens(guard, rows)
    gained, lost = (_pointwise(rows.known(condition)) for condition in (gained, lost))
    if guard.position == Q:
        there = tokens[(tokens >= rows.first) & (tokens < rows.first + rows.q_len)]
        return _counted(gained, there, rows) - _counted(lost, there, rows)
    form = position_of(guard.position)
    if form is None:
        raise NoForm
    key: dict[Node, Node] = {K: scale(sub(Sym("token"), rows.known(form[1])), form[0])}
    turned: dict[Node, Node] = {Q: add(K, rows.first), Sym("token"): Q}
    inside = conj(le(0, K), lt(K, rows.kv_len))
    gained, lost = (substitute_bool(substitute_bool(conj(x, inside), key), turned) for x in (gained, lost))
    turned_rows = replace(rows, first=0, kv_len=rows.q_len, tables={})
    return _counted(gained, tokens, turned_rows) - _counted(lost, tokens, turned_rows)


def _counted(condition: Bool, q: IntArray, rows: Rows) -> int:
    """The keys of the rows at positions q."""
    keys = KeyForm.of(condition, rows.kv_len)
    return sum(int(keys.counts(part, rows).sum()) for part in np.array_split(q, len(q) // TOKENS + 1))


def _pointwise(condition: Bool) -> Bool:
    """Other lists of constant tokens as comparisons."""
    lists = [part for part in subexpressions(condition) if isinstance(part, Member) and not part.tokens.tensors]
    return substitute_bool(condition, {part: points(part.position, part.tokens.values, part.length) for part in lists})


def add_listed(guard: Bool, gained: Bool, lost: Bool, rows: Rows, total: IntArray) -> None:
    """Adds to each row's `total` what the pairs named by `guard` gain and lose.

    Raises:
        NoForm: The guard's pairs do not follow from its tokens or blocks.
    """
    match guard:
        case Member(position, _, length):
            form = position_of(position)
            if form is None or symbols(length) - {"kv_len"}:
                raise NoForm
            sign, rest = form
            _add_tokens(_tokens(guard, rows), sign, rest, gained, lost, rows, total)
        case InTable(_, row, column):
            sizes = _divisor(row, Q), _divisor(column, K)
            if sizes[0] is None or sizes[1] is None:
                raise NoForm
            _add_blocks(guard, (sizes[0], sizes[1]), gained, lost, rows, total)


def _tokens(guard: Member, rows: Rows) -> IntArray:
    """The positions that a list names, ascending."""
    length = int(evaluate(guard.length, rows.env, rows.tensors))
    return rows.tensors.tokens(guard.tokens, length, rows.env)


def _add_tokens(tokens: IntArray, sign: int, rest: Expr, gained: Bool, lost: Bool, rows: Rows, total: IntArray) -> None:
    if len(tokens) * rows.q_len > MAX_WORK:
        raise too_long("looking at so many listed keys of so many rows")
    for part in rows.chunks(CELLS // max(len(tokens), 1)):
        q = rows.first + np.arange(part.start, part.stop)[:, None]
        keys = sign * (tokens - evaluate(rest, {**rows.env, "q": q}, rows.tensors))
        keys = np.broadcast_to(keys, (len(q), len(tokens)))
        inside = (keys >= 0) & (keys < rows.kv_len)
        total[part] += (_gain(gained, lost, q, np.where(inside, keys, 0), rows) * inside).sum(1)


def _gain(gained: Bool, lost: Bool, q: IntArray, k: IntArray, rows: Rows) -> IntArray:
    env = {**rows.env, "q": q, "k": k}
    return evaluate(gained, env, rows.tensors).astype(np.int64) - evaluate(lost, env, rows.tensors)


def _divisor(expr: Expr, symbol: Sym) -> int | None:
    match expr:
        case Sym():
            return 1 if expr == symbol else None
        case FloorDiv(dividend, Int(divisor)) if dividend == symbol:
            return divisor
    return None


def _add_blocks(guard: InTable, sizes: tuple[int, int], gained: Bool, lost: Bool, rows: Rows, total: IntArray) -> None:
    columns = np.arange(-(-rows.kv_len // sizes[1]))
    first, last = rows.first // sizes[0], (rows.first + rows.q_len - 1) // sizes[0]
    if rows.q_len * -(-rows.kv_len // sizes[0]) > MAX_WORK * sizes[1]:
        raise too_long("looking at a table of so many blocks")
    step = max(CELLS // max(len(columns), 1), 1)
    for begin in range(first, last + 1 if rows.q_len else first, step):
        block = np.arange(begin, min(begin + step, last + 1))
        env = {**rows.env, "row": block[:, None], "column": columns[None, :]}
        marked = evaluate(InTable(guard.table, Sym("row"), Sym("column")), env, rows.tensors)
        row, column = np.nonzero(np.broadcast_to(marked, (len(block), len(columns))))
        _add_marked(block[row] * sizes[0], column * sizes[1], sizes, gained, lost, rows, total)


def _add_marked(
    q: IntArray, k: IntArray, sizes: tuple[int, int], gained: Bool, lost: Bool, rows: Rows, total: IntArray
) -> None:
    """Blocks whose first pairs are (q[i], k[i])."""
    width = max(CELLS // (sizes[0] * sizes[1]), 1)
    for begin in range(0, len(q), width):
        part = slice(begin, begin + width)
        queries = q[part, None, None] + np.arange(sizes[0])[:, None]
        keys = k[part, None, None] + np.arange(sizes[1])
        row = queries - rows.first
        inside = (row >= 0) & (row < rows.q_len) & (keys < rows.kv_len)
        per_row = (_gain(gained, lost, queries, keys, rows) * inside).sum(2)
        some = ((row >= 0) & (row < rows.q_len))[:, :, 0]
        np.add.at(total, row[:, :, 0][some], per_row[some])
