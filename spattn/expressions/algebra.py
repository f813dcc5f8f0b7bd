"""Constructors that keep expressions canonical: the one place where nodes are simplified.

Sums are flat and sorted, coefficients under a floor division are reduced to [-d/2, d/2) (a polyhedral library may print
`floor(-x/d)` as `x - floor(((d-1)*x + ..)/d)`, which passes 2^31 early), constants fold, And and Or are flat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import lru_cache

from spattn.expressions.nodes import (
    FALSE,
    KV_LEN,
    Q_OFFSET,
    TRUE,
    And,
    Bool,
    DocumentBound,
    Documents,
    Eq,
    Expr,
    FloorDiv,
    Int,
    InTable,
    K,
    Le,
    Length,
    Max,
    Member,
    Min,
    Mod,
    Mul,
    Node,
    Not,
    Or,
    Q,
    RandomTable,
    Read,
    Relative,
    SameSegment,
    Select,
    Sum,
    Sym,
    Truth,
)


def linear(expr: Expr) -> tuple[dict[Expr, int], int]:
    """`expr` as (coefficient of each non-sum term, constant)."""
    match expr:
        case Int(value):
            return {}, value
        case Sum(terms, constant):
            return dict(terms), constant
        case _:
            return {expr: 1}, 0


def from_linear(terms: Mapping[Expr, int], constant: int) -> Expr:
    """The canonical expression of a linear form: positive coefficients first, then by text."""
    kept = [(term, coefficient) for term, coefficient in terms.items() if coefficient]
    if not kept:
        return Int(constant)
    if len(kept) == 1 and kept[0][1] == 1 and constant == 0:
        return kept[0][0]
    if len(kept) > 1:
        kept.sort(key=lambda item: (item[1] < 0, repr(item[0])))
    return Sum(tuple(kept), constant)


def add(*args: Expr | int) -> Expr:
    """The sum of `args`."""
    total: dict[Expr, int] = {}
    constant = 0
    for arg in args:
        terms, extra = linear(lift(arg))
        constant += extra
        for term, coefficient in terms.items():
            total[term] = total.get(term, 0) + coefficient
    return from_linear(total, constant)


def lift(value: Expr | int) -> Expr:
    """An int as an expression."""
    return Int(value) if isinstance(value, int) else value


def scale(expr: Expr | int, factor: int) -> Expr:
    """`factor * expr`."""
    terms, constant = linear(lift(expr))
    return from_linear({term: factor * coefficient for term, coefficient in terms.items()}, factor * constant)


def sub(left: Expr | int, right: Expr | int) -> Expr:
    """`left - right`."""
    return add(left, scale(right, -1))


def mul(left: Expr | int, right: Expr | int) -> Expr:
    """`left * right`."""
    match lift(left), lift(right):
        case Int(value), other:
            return scale(other, value)
        case other, Int(value):
            return scale(other, value)
        case one, other:
            return Mul(one, other)
    raise AssertionError


def floordiv(dividend: Expr | int, divisor: Expr | int) -> Expr:
    """`floor(dividend / divisor)`."""
    match lift(dividend), lift(divisor):
        case x, Int(d) if d > 0:
            return _floordiv(x, d)
        case x, d:
            return FloorDiv(x, d)
    raise AssertionError


def _floordiv(dividend: Expr, d: int) -> Expr:
    terms, constant = linear(dividend)
    outside = {term: (2 * coefficient + d - 1) // (2 * d) for term, coefficient in terms.items()}
    inside = {term: coefficient - outside[term] * d for term, coefficient in terms.items()}
    inside = {term: coefficient for term, coefficient in inside.items() if coefficient}
    if not inside:
        return from_linear(outside, constant // d)
    common = math.gcd(d, *inside.values())
    inside = {term: coefficient // common for term, coefficient in inside.items()}
    constant, d = constant // common, d // common
    if d == 1:
        return add(from_linear(outside, 0), from_linear(inside, constant))
    if all(coefficient < 0 for coefficient in inside.values()):
        # floor(-x/d) = -floor((x+d-1)/d)
        positive = {term: -coefficient for term, coefficient in inside.items()}
        quotient = scale(_small_floordiv(positive, d - 1 - constant, d), -1)
    else:
        quotient = _small_floordiv(inside, constant, d)
    return add(from_linear(outside, 0), quotient)


def _small_floordiv(terms: dict[Expr, int], constant: int, d: int) -> Expr:
    """A floor division whose constant is brought into [0, d)."""
    whole, rest = divmod(constant, d)
    if len(terms) == 1 and rest == 0:
        ((term, coefficient),) = terms.items()
        match term:
            case FloorDiv(inner, Int(e)) if coefficient == 1:
                # floor(floor(x/e)/d) = floor(x/(e*d))
                return add(_floordiv(inner, e * d), whole)
    return add(FloorDiv(from_linear(terms, rest), Int(d)), whole)


def mod(dividend: Expr | int, divisor: Expr | int) -> Expr:
    """`dividend mod divisor`, in [0, divisor) for a positive divisor."""
    match lift(dividend), lift(divisor):
        case Int(x), Int(d) if d > 0:
            return Int(x % d)
        case _, Int(1):
            return Int(0)
        case x, Int(d) if d > 0:
            terms, constant = linear(x)
            reduced = {term: (coefficient + d // 2) % d - d // 2 for term, coefficient in terms.items()}
            inner = from_linear(reduced, constant % d)
            return Int(inner.value % d) if isinstance(inner, Int) else Mod(inner, Int(d))
        case x, d:
            return Mod(x, d)
    raise AssertionError


def minimum(*args: Expr | int) -> Expr:
    """The least of `args`."""
    return _extreme(Min, min, args)


def maximum(*args: Expr | int) -> Expr:
    """The greatest of `args`."""
    return _extreme(Max, max, args)


def _extreme(node: type[Min] | type[Max], pick: Callable[..., int], args: tuple[Expr | int, ...]) -> Expr:
    flat: list[Expr] = []
    for arg in map(lift, args):
        flat.extend(arg.args if isinstance(arg, node) else (arg,))
    # of terms that differ by a constant only one can win
    best: dict[tuple[tuple[Expr, int], ...], int] = {}
    for arg in flat:
        terms, constant = linear(arg)
        key = tuple(sorted(terms.items(), key=repr))
        best[key] = pick(best[key], constant) if key in best else constant
    kept = tuple(from_linear(dict(terms), constant) for terms, constant in best.items())
    return kept[0] if len(kept) == 1 else node(kept)


def select(condition: Bool, then: Expr | int, otherwise: Expr | int) -> Expr:
    """`then if condition else otherwise`."""
    match condition, lift(then), lift(otherwise):
        case Truth(value), a, b:
            return a if value else b
        case _, a, b:
            return a if a == b else Select(condition, a, b)
    raise AssertionError


def absolute(expr: Expr) -> Expr:
    """`|expr|`."""
    return maximum(expr, scale(expr, -1))


def le(left: Expr | int, right: Expr | int) -> Bool:
    """`left <= right`, negative terms moved to the other side."""
    terms, constant = linear(sub(right, left))
    if not terms:
        return Truth(constant >= 0)
    common = math.gcd(*terms.values())
    terms = {term: coefficient // common for term, coefficient in terms.items()}
    constant //= common
    plus = {term: coefficient for term, coefficient in terms.items() if coefficient > 0}
    minus = {term: -coefficient for term, coefficient in terms.items() if coefficient < 0}
    return Le(from_linear(minus, max(-constant, 0)), from_linear(plus, max(constant, 0)))


def lt(left: Expr | int, right: Expr | int) -> Bool:
    """`left < right`."""
    return le(add(left, 1), right)


def eq(left: Expr | int, right: Expr | int) -> Bool:
    """`left = right`."""
    terms, constant = linear(sub(left, right))
    if not terms:
        return Truth(constant == 0)
    common = math.gcd(*terms.values())
    if constant % common:
        return FALSE
    terms = {term: coefficient // common for term, coefficient in terms.items()}
    constant //= common
    if sum(coefficient > 0 for coefficient in terms.values()) * 2 < len(terms):
        terms, constant = {term: -coefficient for term, coefficient in terms.items()}, -constant
    plus = {term: coefficient for term, coefficient in terms.items() if coefficient > 0}
    minus = {term: -coefficient for term, coefficient in terms.items() if coefficient < 0}
    return Eq(from_linear(plus, max(constant, 0)), from_linear(minus, max(-constant, 0)))


def conj(*args: Bool) -> Bool:
    """All of `args`."""
    flat: dict[Bool, None] = {}
    for arg in args:
        flat.update(dict.fromkeys(arg.args if isinstance(arg, And) else (arg,)))
    if FALSE in flat or len(flat) > 1 and any(negate(arg) in flat for arg in flat):
        return FALSE
    kept = tuple(arg for arg in flat if arg != TRUE)
    return TRUE if not kept else kept[0] if len(kept) == 1 else And(kept)


def disj(*args: Bool) -> Bool:
    """Any of `args`."""
    flat: dict[Bool, None] = {}
    for arg in args:
        flat.update(dict.fromkeys(arg.args if isinstance(arg, Or) else (arg,)))
    if TRUE in flat or len(flat) > 1 and any(negate(arg) in flat for arg in flat):
        return TRUE
    kept = tuple(arg for arg in flat if arg != FALSE)
    return FALSE if not kept else kept[0] if len(kept) == 1 else Or(kept)


@lru_cache(maxsize=4096)
def negate(arg: Bool) -> Bool:
    """Not `arg`; a negated comparison is the opposite one."""
    match arg:
        case Truth(value):
            return Truth(not value)
        case Not(inner):
            return inner
        case Le(left, right):
            return lt(right, left)
        case _:
            return Not(arg)


def whole(condition: Bool) -> Bool:
    """`condition` as one guard, which no rule takes apart."""
    return eq(select(condition, 1, 0), 1)


def children(node: Node) -> tuple[Node, ...]:
    """The expressions directly below `node`."""
    match node:
        case Sum(terms, _):
            return tuple(term for term, _ in terms)
        case Min(args) | Max(args):
            return args
        case And(args) | Or(args):
            return args
        case Read(_, index):
            return index
        case InTable(table, row, column):
            blocks = getattr(table, "key_blocks", None)
            return (row, column) if blocks is None else (row, column, blocks)
        case _:
            values = (getattr(node, field.name) for field in fields(node))
            return tuple(value for value in values if isinstance(value, Expr | Bool))


def subexpressions(node: Node) -> list[Node]:
    """`node` and all below it, itself first; a `Relative`'s inside counts as below."""
    found: list[Node] = []
    todo = [node]
    while todo:
        top = todo.pop()
        found.append(top)
        todo.extend(reversed(children(top)))
    return found


def symbols(node: Node) -> frozenset[str]:
    """Names of the symbols in `node`."""
    return frozenset(part.name for part in subexpressions(node) if isinstance(part, Sym))


def substitute_bool(node: Bool, values: Mapping[Node, Node]) -> Bool:
    """`node` with each key of `values` replaced, and simplified again."""
    result = _substitute(node, values)
    assert isinstance(result, Bool)
    return result


def substitute(node: Expr, values: Mapping[Node, Node]) -> Expr:
    """`node` with each key of `values` replaced, and simplified again."""
    result = _substitute(node, values)
    assert isinstance(result, Expr)
    return result


def _substitute(node: Node, values: Mapping[Node, Node]) -> Node:
    if node in values:
        return values[node]

    def expr(part: Expr) -> Expr:
        return substitute(part, values)

    def boolean(part: Bool) -> Bool:
        return substitute_bool(part, values)

    match node:
        case Int() | Sym() | Truth() | Length():
            return node
        case Sum(terms, constant):
            return add(constant, *(scale(expr(term), coefficient) for term, coefficient in terms))
        case Mul(left, right):
            return mul(expr(left), expr(right))
        case FloorDiv(dividend, divisor):
            return floordiv(expr(dividend), expr(divisor))
        case Mod(dividend, divisor):
            return mod(expr(dividend), expr(divisor))
        case Min(args):
            return minimum(*map(expr, args))
        case Max(args):
            return maximum(*map(expr, args))
        case Select(condition, then, otherwise):
            return select(boolean(condition), expr(then), expr(otherwise))
        case Read(tensor, index):
            return Read(tensor, tuple(map(expr, index)))
        case Le(left, right):
            return le(expr(left), expr(right))
        case Eq(left, right):
            return eq(expr(left), expr(right))
        case And(args):
            return conj(*map(boolean, args))
        case Or(args):
            return disj(*map(boolean, args))
        case Not(arg):
            return negate(boolean(arg))
        case Member(position, tokens, length):
            return Member(expr(position), tokens, expr(length))
        case InTable(table, row, column):
            if isinstance(table, RandomTable):
                table = replace(table, key_blocks=expr(table.key_blocks))
            return InTable(table, expr(row), expr(column))
        case SameSegment(documents, left, right):
            return SameSegment(documents, expr(left), expr(right))
        case Relative(documents, inner, rows):
            # the frame moves some symbols: what speaks of these means something else inside
            same = {old: new for old, new in values.items() if not _is_framed(old) and not _is_framed(new)}
            inner = substitute_bool(inner, same)
            return Relative(documents, inner, rows) if _is_framed(inner) else inner
    raise AssertionError(f"no rule for {node!r}")


def _is_framed(node: Node) -> bool:
    return bool(symbols(node) & {"q", "k", "kv_len"})


def query_index(documents: Documents, position: Expr) -> Expr:
    """The index of the query at a position in the list of its side."""
    return sub(position, Q_OFFSET) if documents.two_sided else position


def same_document(documents: Documents, q: Expr = Q, k: Expr = K) -> SameSegment:
    """The query at position q and the key at position k are of one document."""
    return SameSegment(documents, query_index(documents, q), k)


def pair_of(node: SameSegment) -> tuple[Expr, Expr]:
    """The positions (of the query, of the key) that a test asks about."""
    return add(node.left, Q_OFFSET) if node.documents.two_sided else node.left, node.right


def is_about_pair(node: SameSegment) -> bool:
    """Does a test ask about q and k themselves, in whichever order?"""
    return set(pair_of(node)) == {Q, K}


def document_end(documents: Documents, of: str, seen_from: str, end: str, index: Expr) -> Read:
    """An end of a document; one list has one side."""
    sides = (of, seen_from) if documents.two_sided else ("keys", "keys")
    return Read(DocumentBound(documents, *sides, end), (index,))


def relative_inner(node: Relative) -> Bool:
    """`node` in absolute positions: ends of the row's document take the place of the frame."""
    documents, rows = node.documents, node.rows
    query, key = (Q, K) if rows == "queries" else (K, Q)
    index = query_index(documents, Q) if rows == "queries" else Q
    start, stop = (document_end(documents, "keys", rows, end, index) for end in ("start", "stop"))
    length = sub(stop, start)
    first: Expr = start
    if documents.two_sided:
        last = add(document_end(documents, "queries", rows, "stop", index), Q_OFFSET)
        first = sub(last, length)
    return substitute_bool(node.inner, {query: sub(query, first), key: sub(key, start), KV_LEN: length})
