"""Expressions as Triton: scalars at a tile's clock, broadcast vectors at a pair's.

Triton's `//` and `%` truncate, ours round down: powers of two become shifts and bit masks, the rest calls the two
functions of the kernel's preamble. A remainder compared with 0 is the same either way. Numbers have 32 bits but where
some may not fit: those comparisons are made with 64, and a bound becomes the nearest position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from spattn.codegen.parameters import (
    BlockLists,
    DocumentBounds,
    DocumentIds,
    GivenTokens,
    Membership,
    Parameters,
    Values,
)
from spattn.expressions.algebra import add, conj, is_about_pair, le, relative_inner, sub, subexpressions, symbols
from spattn.expressions.nodes import (
    KV_LEN,
    And,
    BitTable,
    Bool,
    DocumentBound,
    Documents,
    Eq,
    Expr,
    FloorDiv,
    GivenTable,
    Int,
    InTable,
    K,
    Le,
    Length,
    ListedTable,
    Max,
    Member,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    RandomTable,
    Read,
    Relative,
    SameSegment,
    Select,
    Sum,
    Sym,
    Table,
    Truth,
)
from spattn.expressions.width import LONGEST, Width

MAX_COMPARED = 8  # tokens compared one by one; more are looked up


@dataclass(frozen=True)
class TritonText:
    """A printer.

    Attributes:
        names: How each symbol is written.
        parameters: Collects the tensors that are read.
        width: How great the symbols may be.
        runs: Documents that lie in one piece for each row, and their segments' numbers.
        frames: Documents of two sides whose rows are counted in them already, and their segments' numbers.
        wide: Do its numbers have 64 bits?
    """

    names: Mapping[str, str]
    parameters: Parameters
    width: Width = Width()
    runs: Mapping[Documents, int] = field(default_factory=dict)
    frames: Mapping[Documents, int] = field(default_factory=dict)
    wide: bool = False

    def of(self, node: Expr | Bool) -> str:
        """`node` as Triton, without parentheses around it."""
        if isinstance(node, Expr) and not self.wide and not self.width.fits(node):
            return f"narrowed({replace(self, wide=True).of(node)})"
        text = self._term(node)
        return text[1:-1] if text.startswith("(") and _closes_at_end(text) else text

    def _term(self, node: Expr | Bool) -> str:
        match node:
            case Int(value):
                return str(value) if value >= 0 else f"({value})"
            case Sym(name):
                text = self.names.get(name, name)
                return f"tl.cast({text}, tl.int64)" if self.wide else text
            case Sum(terms, constant):
                return self._sum(terms, constant)
            case Mul(left, right):
                return f"({self._term(left)} * {self._term(right)})"
            case FloorDiv(dividend, Int(d)) if _power(d):
                return f"({self._term(dividend)} >> {d.bit_length() - 1})"
            case FloorDiv(dividend, divisor):
                return f"floor_div({self.of(dividend)}, {self.of(divisor)})"
            case Mod(dividend, Int(d)) if _power(d):
                return f"({self._term(dividend)} & {d - 1})"
            case Mod(dividend, divisor):
                return f"floor_mod({self.of(dividend)}, {self.of(divisor)})"
            case Min(args):
                return self._nested("tl.minimum", args)
            case Max(args):
                return self._nested("tl.maximum", args)
            case Select(condition, then, otherwise):
                return f"tl.where({self.of(condition)}, {self.of(then)}, {self.of(otherwise)})"
            case Read(DocumentBound(documents, of, seen_from, end), index):
                return self._read(DocumentBounds(documents, of, seen_from, end), index)
            case Read(str() as tensor, index):
                return self._read(Values(tensor, len(index)), index)
            case Length(tensor):
                return self._term(Sym(f"{self.parameters.name(Values(tensor, 1))}_size_0"))
            case Bool():
                return self._bool(node)
        raise AssertionError(node)

    def _bool(self, node: Bool) -> str:
        match node:
            case Le() | Eq() | Not(Eq()) if not self.wide and not self.width.fits(node):
                return replace(self, wide=True)._bool(node)
            case Truth(value):
                return str(value)
            case Le(left, Sum(terms, constant)) if constant == -1:
                return f"({self._term(left)} < {self._term(add(Sum(terms, -1), 1))})"
            case Le(Sum(terms, 1), right):
                return f"({self._term(add(Sum(terms, 1), -1))} < {self._term(right)})"
            case Le(left, right):
                return f"({self._term(left)} <= {self._term(right)})"
            case Eq(Select(condition, Int(1), Int(0)), Int(1)):
                return self._term(condition)
            case Eq(Mod(dividend, Int(d)), Int(0)):
                return f"({self._term(dividend)} % {d} == 0)"
            case Eq(left, right):
                return f"({self._term(left)} == {self._term(right)})"
            case And(args):
                texts = self._together(args)
                return texts[0] if len(texts) == 1 else f"({' & '.join(texts)})"
            case Or(args):
                return f"({' | '.join(map(self._term, args))})"
            case Not(Eq(Mod(dividend, Int(d)), Int(0))):
                return f"({self._term(dividend)} % {d} != 0)"
            case Not(Eq(left, right)):
                return f"({self._term(left)} != {self._term(right)})"
            case Not(arg):
                return f"(~{self._term(arg)})"
            case Member(position, tokens, length):
                return self._member(position, tokens, length)
            case SameSegment(documents, _, _) if documents in self.runs and is_about_pair(node):
                run = f"segment_{self.runs[documents]}_run"
                return f"below({self._term(K)} - {run}_start[:, None], {run}_count[:, None])"
            case SameSegment():
                return self._same_segment(node)
            case Relative(documents, inner) if documents in self.frames:
                return self._framed(f"segment_{self.frames[documents]}", inner)
            case Relative():
                return self._term(relative_inner(node))
            case InTable(table, row, column):
                return self._in_table(table, row, column)
        raise AssertionError(node)

    def _together(self, args: tuple[Bool, ...]) -> list[str]:
        """The parts of a conjunction; both ends of an interval are one comparison."""
        left, texts = list(args), []
        while left:
            low = left.pop(0)
            found = next(((high, text) for high in left if (text := self._within(low, high))), None)
            if found is None:
                texts.append(self._term(low))
            else:
                left.remove(found[0])
                texts.append(found[1])
        return texts

    def _within(self, low: Bool, high: Bool) -> str | None:
        """`0 <= x <= w`, where `low` and `high` are its parts for some x and a constant w."""
        match low, high:
            case Le(a, b), Le(c, d):
                x = sub(b, a)
                match add(x, sub(d, c)):
                    case Int(width) if 0 <= width < LONGEST and not isinstance(x, Int):
                        return f"below({self.of(x)}, {width + 1})"
        return None

    def _sum(self, terms: tuple[tuple[Expr, int], ...], constant: int) -> str:
        text = ""
        for term, coefficient in terms:
            size = abs(coefficient)
            factor = self._term(term) if size == 1 else f"{size} * {self._term(term)}"
            if not text:
                text = factor if coefficient > 0 else f"-{factor}"
            else:
                text += f" + {factor}" if coefficient > 0 else f" - {factor}"
        if constant:
            text += f" + {constant}" if constant > 0 else f" - {-constant}"
        return f"({text})"

    def _nested(self, function: str, args: tuple[Expr, ...]) -> str:
        text = self.of(args[0])
        for arg in args[1:]:
            text = f"{function}({text}, {self.of(arg)})"
        return text

    def _framed(self, segment: str, inner: Bool) -> str:
        """A condition in the frame of each row's document."""
        row, column = f"{segment}_at[:, None]", f"({self.names['k']} - {segment}_from[:, None])"
        names = {**self.names, "q": row, "k": column, "kv_len": f"{segment}_size[:, None]"}
        # a side has fewer than LONGEST indices, so two of them are less than that apart
        apart = (1 - LONGEST, LONGEST - 1)
        known = {**self.width.known, "q": apart, "k": apart}
        return replace(self, names=names, width=Width(known), wide=False)._term(inner)

    def _same_segment(self, node: SameSegment) -> str:
        documents, left, right = node.documents, node.left, node.right
        sides = ("keys", "keys") if documents.plain else ("queries", "keys")
        ids = (DocumentIds(documents, side) for side in sides)
        same = " == ".join(self._read(role, (index,)) for role, index in zip(ids, (left, right), strict=True))
        if documents.two_sided:
            return f"({same})"  # of the call's rows and columns there is no index outside
        ends = (le(0, left), le(add(left, 1), KV_LEN), le(0, right), le(add(right, 1), KV_LEN))
        return f"({self._term(conj(*ends))} & ({same}))"

    def _read(self, role: Values | DocumentIds | DocumentBounds, index: tuple[Expr, ...]) -> str:
        t = self.parameters.name(role)
        parts = [f"{t}_ptr"]
        for i, expr in enumerate(index):
            parts += [self.of(expr), f"{t}_size_{i}", f"{t}_stride_{i}"]
        return f"read_{len(index)}({', '.join(parts)})"

    def _member(self, position: Expr, tokens: object, length: Expr) -> str:
        role = Membership(tokens, length)  # type: ignore[arg-type]
        values, tensors = role.tokens.values, role.tokens.tensors
        one_for_all = symbols(length) <= {"kv_len"} and not any(isinstance(p, Read) for p in subexpressions(length))
        if not one_for_all or (not tensors and len(values) <= MAX_COMPARED):
            inside = conj(le(0, position), le(add(position, 1), length))
            places = [self._term(Eq(position, Int(v) if v >= 0 else add(length, v))) for v in values]
            places += [self._given_tokens(name, position, length) for name in tensors]
            return f"({self._term(inside)} & ({' | '.join(places)}))"
        t = self.parameters.name(role)
        inside = conj(le(0, position), le(add(position, 1), Sym(f"{t}_size_0")))
        return f"({self._term(inside)} & (read_1({t}_ptr, {self.of(position)}, {t}_size_0, {t}_stride_0) != 0))"

    def _given_tokens(self, name: str, position: Expr, length: Expr) -> str:
        t = self.parameters.name(GivenTokens(name))
        return f"in_tokens({t}_ptr, {self.of(position)}, {self.of(length)}, {t}_size_0, {t}_stride_0)"

    def _in_table(self, table: Table, row: Expr, column: Expr) -> str:
        match table:
            case GivenTable(tensor):
                role = Values(tensor, 2)
                t = self.parameters.name(role)
                inside = conj(
                    le(0, row),
                    le(add(row, 1), Sym(f"{t}_size_0")),
                    le(0, column),
                    le(add(column, 1), Sym(f"{t}_size_1")),
                )
                return f"({self._term(inside)} & ({self._read(role, (row, column))} != 0))"
            case BitTable(tensor):
                role = Values(tensor, 1)
                inside = conj(le(0, row), le(add(row, 1), Sym(f"{self.parameters.name(role)}_size_0")))
                return f"({self._term(inside)} & has_bit({self._read(role, (row,))}, {self.of(column)}))"
            case RandomTable() | ListedTable():
                t = self.parameters.name(BlockLists(table, _row_size(row), False))
                sizes = f"{t}_first_row, {t}_size_0, {t}_size_1, {t}_stride_0"
                listed = f"in_list({t}_ptr, {self.of(row)}, {self.of(column)}, {sizes})"
                if isinstance(table, RandomTable):
                    return listed
                return f"({self._term(conj(le(0, row), le(add(row, 1), Sym(f'{t}_size_0'))))} & {listed})"


def _row_size(row: Expr) -> int:
    """Positions in a row of the table: `row` is a position, or one divided by a constant."""
    match row:
        case FloorDiv(Sym(), Int(size)):
            return size
        case Sym():
            return 1
    raise AssertionError(row)


def _power(d: int) -> bool:
    return d > 0 and d & (d - 1) == 0


def _closes_at_end(text: str) -> bool:
    """Does the parenthesis that opens `text` close at its very end?"""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i == len(text) - 1
    return False
