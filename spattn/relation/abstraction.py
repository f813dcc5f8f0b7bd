"""Conditions made affine: what isl cannot hold becomes free truth values and integers, with what is known of them.

A *guard* (a list given at the call, a table, a document test) is a truth value; a *number* (a tensor's entry, a
product) an integer. Both are the same where their arguments are the same. What holds for all their values holds; what
fails for some need not, since the values may not go together: a witness is checked against the meaning itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from spattn.errors import UnsupportedError
from spattn.expressions.algebra import (
    add,
    children,
    conj,
    disj,
    document_end,
    eq,
    le,
    lt,
    minimum,
    negate,
    relative_inner,
    subexpressions,
    substitute_bool,
    symbols,
)
from spattn.expressions.nodes import (
    KV_LEN,
    Q_OFFSET,
    TRUE,
    And,
    BitTable,
    Bool,
    DocumentBound,
    Expr,
    FloorDiv,
    GivenTable,
    Int,
    InTable,
    K,
    Length,
    ListedTable,
    Member,
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
    Sym,
    Tokens,
    Truth,
)
from spattn.relation.affine import is_affine
from spattn.relation.frames import points

MAX_GUARDS = 6
MAX_NUMBERS = 6
MAX_TOKENS = 64  # of one list; more are a guard
Guard = Member | InTable | SameSegment


@dataclass(frozen=True)
class Assignment:
    """Truth values of the guards, and what follows from them for the symbols (affine)."""

    values: Mapping[Guard, bool]
    facts: Bool


@dataclass(frozen=True)
class Abstraction:
    """Conditions over one set of guards and numbers.

    Attributes:
        conditions: As written, frames and constant tokens resolved.
        guards: Their guards.
        numbers: The symbol of each number.
    """

    conditions: tuple[Bool, ...]
    guards: tuple[Guard, ...]
    numbers: Mapping[Node, Node]

    @staticmethod
    def of(*conditions: Bool) -> Abstraction:
        """The abstraction of conditions.

        Raises:
            UnsupportedError: More guards or numbers than MAX_GUARDS, MAX_NUMBERS.
        """
        plain = tuple(substitute_bool(resolved(condition), {Q_OFFSET: Int(0)}) for condition in conditions)
        guards = tuple(dict.fromkeys(guard for condition in plain for guard in _guards(condition)))
        nodes: list[Node] = [*plain, *(arg for guard in guards for arg in arguments(guard))]
        numbers = dict.fromkeys(number for node in nodes for number in _numbers(node))
        _check(len(guards), MAX_GUARDS, "lists, tables and documents that a call gives")
        _check(len(numbers), MAX_NUMBERS, "tensor entries and products")
        return Abstraction(plain, guards, {number: Sym(f"x{i}") for i, number in enumerate(numbers)})

    def assignments(self) -> Iterator[Assignment]:
        """All truth values of the guards."""
        for values in itertools.product((False, True), repeat=len(self.guards)):
            chosen = dict(zip(self.guards, values, strict=True))
            yield Assignment(chosen, conj(self.domain(), self._guard_facts(chosen)))

    def affine(self, condition: Bool, assignment: Assignment) -> Bool:
        """One of the conditions over symbols alone.

        Raises:
            UnsupportedError: It has parts that are neither affine nor guards.
        """
        known: dict[Node, Node] = {guard: Truth(value) for guard, value in assignment.values.items()}
        result = substitute_bool(substitute_bool(condition, known), self.numbers)
        if not is_affine(result):
            raise UnsupportedError("E096", "the pattern has a part that the proofs cannot express")
        return result

    def names(self) -> list[str]:
        """The symbols, in the order in which a witness should be small."""
        nodes: list[Node] = [*self.conditions, *(arg for guard in self.guards for arg in arguments(guard))]
        used = frozenset().union(*map(symbols, nodes))
        heads = ["num_heads", "h"] if used & {"h", "num_heads"} else []
        entries = ["batch_size", "b"] if used & {"b", "batch_size"} else []
        return ["kv_len", *heads, *entries, "q", "k", *(f"x{i}" for i in range(len(self.numbers)))]

    def domain(self) -> Bool:
        """0 <= q, k < kv_len, and so for heads and batch entries; what is known of numbers."""
        names = self.names()
        bounds = [le(0, Q), lt(Q, KV_LEN), le(0, K), lt(K, KV_LEN)]
        for index, size in (("h", "num_heads"), ("b", "batch_size")):
            bounds += [le(0, Sym(index)), lt(Sym(index), Sym(size))] if index in names else []
        return conj(*bounds, *self._number_facts())

    def _number_facts(self) -> Iterator[Bool]:
        for number in self.numbers:
            match number:
                case Read(DocumentBound() as bound, (index,)):
                    yield self._known(_document_end(bound, number, index))
        for one, other in itertools.combinations(self.numbers, 2):
            match one, other:
                case Read(a, i), Read(b, j) if a == b and len(i) == len(j):
                    yield self._known(disj(*(_differ(x, y) for x, y in zip(i, j, strict=True)), eq(one, other)))
                case Read(DocumentBound() as a, i), Read(DocumentBound() as b, j) if i == j:
                    yield self._known(_in_order(a, one, b, other))

    def _guard_facts(self, values: Mapping[Guard, bool]) -> Bool:
        facts = [self._known(fact) for guard, value in values.items() for fact in self._guard_fact(guard, value)]
        for one, other in itertools.combinations(values, 2):
            if values[one] != values[other] and _subject(one) == _subject(other):
                pairs = zip(arguments(one), arguments(other), strict=True)
                facts.append(self._known(disj(*(_differ(a, b) for a, b in pairs))))
        return conj(*facts)

    def _guard_fact(self, guard: Guard, value: bool) -> Iterator[Bool]:
        match guard:
            case Member(position, _, length) if value:
                yield conj(le(0, position), lt(position, length))
            case InTable(RandomTable(), _, _):
                there, every = random_blocks_known(guard)
                yield conj(there, Truth(_count(guard) > 0)) if value else negate(conj(there, every))
            case SameSegment(documents, left, right) if value:
                yield conj(is_position(left), is_position(right))
                for seen_from, side, of, other in (("queries", left, "keys", right), ("keys", right, "queries", left)):
                    start, stop = (document_end(documents, of, seen_from, end, side) for end in ("start", "stop"))
                    yield le(start, other) if start in self.numbers else TRUE
                    yield lt(other, stop) if stop in self.numbers else TRUE
            case SameSegment(documents, left, right) if documents.plain:
                yield disj(negate(is_position(left)), _differ(left, right))

    def _known(self, fact: Bool) -> Bool:
        """`fact` over symbols, true where it cannot be said."""
        result = substitute_bool(fact, self.numbers)
        return result if is_affine(result) else TRUE


def random_blocks_known(guard: InTable) -> tuple[Bool, Bool]:
    """(the block is one to draw from, all of these are drawn)."""
    table = guard.table
    assert isinstance(table, RandomTable)
    some = minimum(add(guard.row, 1), table.key_blocks) if table.past else table.key_blocks
    return conj(le(0, guard.column), lt(guard.column, some)), le(some, table.count)


def _count(guard: InTable) -> int:
    assert isinstance(guard.table, RandomTable)
    return guard.table.count


def _check(count: int, limit: int, what: str) -> None:
    if count > limit:
        message = f"a proof over {count} different {what} is too long"
        raise UnsupportedError("E096", message, hint=f"the limit is {limit}")


def _document_end(bound: DocumentBound, number: Expr, index: Expr) -> Bool:
    somewhere = conj(le(0, number), le(number, KV_LEN))
    if not bound.documents.plain:
        return somewhere
    inside = le(number, index) if bound.end == "start" else lt(index, number)
    return disj(negate(is_position(index)), conj(somewhere, inside))


def _in_order(a: DocumentBound, one: Expr, b: DocumentBound, other: Expr) -> Bool:
    """What two ends of a document say of each other."""
    if a.end == "start":
        a, one, b, other = b, other, a, one
    if (a.end, b.end) != ("stop", "start") or replace(a, end="start") != b:
        return TRUE
    return lt(other, one) if a.documents.plain else le(other, one)


def is_position(expr: Expr) -> Bool:
    """Is it one of 0 .. kv_len-1?"""
    return conj(le(0, expr), lt(expr, KV_LEN))


def _differ(a: Expr, b: Expr) -> Bool:
    return disj(lt(a, b), lt(b, a))


def resolved(condition: Bool) -> Bool:
    """Positions counted from a document's start as absolute ones, constant tokens as points, one order of documents.

    The first query stands at 0: what documents queries are of, counted by rows, is free anyway.
    """
    match condition:
        case And(args):
            return conj(*map(resolved, args))
        case Or(args):
            return disj(*map(resolved, args))
        case Not(arg):
            return negate(resolved(arg))
        case Relative():
            return resolved(relative_inner(condition))
        case Member(position, tokens, length) if len(tokens.values) <= MAX_TOKENS:
            given = (Member(position, Tokens((), (name,)), length) for name in tokens.tensors)
            return disj(points(position, tokens.values, length), *given)
        case SameSegment(documents, left, right) if not documents.two_sided:
            return SameSegment(documents, *sorted((left, right), key=repr))
    products = [part for part in subexpressions(condition) if isinstance(part, Mul)]
    return substitute_bool(condition, {p: Mul(*sorted((p.left, p.right), key=repr)) for p in products})


def _guards(condition: Bool) -> list[Guard]:
    match condition:
        case And(args) | Or(args):
            return [guard for arg in args for guard in _guards(arg)]
        case Not(arg):
            return _guards(arg)
        case Member() | InTable() | SameSegment():
            return [condition]
    return []


def arguments(guard: Guard) -> tuple[Expr, ...]:
    """What a guard's truth depends on, besides its tensor."""
    match guard:
        case Member(position, _, length):
            return position, length
        case InTable(RandomTable(key_blocks=blocks), row, column):
            return row, column, blocks
        case InTable(_, row, column):
            return row, column
        case SameSegment(_, left, right):
            return left, right
    raise AssertionError(guard)


def _subject(guard: Guard) -> object:
    """What a guard asks about: two with one subject and equal arguments are the same."""
    match guard:
        case Member(_, tokens, _):
            return tokens
        case InTable(RandomTable(count, seed, past, _), _, _):
            return count, seed, past
        case InTable(GivenTable() | ListedTable() | BitTable() as table, _, _):
            return table
        case SameSegment(documents, _, _):
            return documents
    raise AssertionError(guard)


def _numbers(node: Node) -> list[Node]:
    """The expressions outside of guards that are not affine, those inside of others too."""
    if isinstance(node, Guard):
        return []
    inner = [number for child in children(node) for number in _numbers(child)]
    return [node, *inner] if isinstance(node, Expr) and _is_number(node) else inner


def _is_number(expr: Expr) -> bool:
    match expr:
        case Mul() | Read() | Length() | Select():
            return True
        case FloorDiv(_, divisor) | Mod(_, divisor):
            return not (isinstance(divisor, Int) and divisor.value > 0)
    return False
