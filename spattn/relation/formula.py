"""The number of pairs for q_len = kv_len = S as a polynomial in S.

Why three counts determine it: let P be a common multiple of all divisors and moduli. With q = P*q' + r, k = P*k' + t
and S = P*n each floor and remainder becomes linear, so a pattern is, for each (r, t), a Boolean combination of
half-planes in (q', k') that shift linearly with n. Its number of points is a quasi-polynomial of degree 2 between the
values of n at which three borders meet in one point (Ehrhart 1962; Clauss 1996). Only borders along q', k', q' - k' and
q' + k' that shift by -1, 0 or 1 are admitted: their corners are integers (halves for q' + k', then P is doubled), so it
is a polynomial; and by Cramer's rule three meet at no n beyond the sum of their constants (twice that for q' + k').
Five counts past it give the polynomial and check it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from spattn.errors import UnsupportedError
from spattn.expressions.algebra import conj, disj, eq, le, linear, lt, sub, subexpressions, substitute_bool, symbols
from spattn.expressions.nodes import (
    And,
    Bool,
    Eq,
    Expr,
    FloorDiv,
    Int,
    K,
    Le,
    Max,
    Member,
    Min,
    Mod,
    Node,
    Not,
    Or,
    Q,
    Sym,
)
from spattn.relation.abstraction import resolved
from spattn.relation.affine import is_affine
from spattn.relation.counting import count, row_counts
from spattn.relation.keys import common_period

MAX_PERIOD = 4096
MAX_ALTERNATIVES = 64  # ways in which minima and maxima of one comparison can be taken
MAX_LOWERED = 2**20  # rows that are counted one by one for the least length of a formula; beyond, it stays at its bound
MAX_LENGTHS = 4096  # below the bound of a pattern that looks at kv_len; of more, too few can be looked at to matter
MAX_COUNTS = 400  # spent on lowering the bound of a pattern that looks at kv_len
Coefficients = tuple[Fraction, Fraction, Fraction]


@dataclass(frozen=True)
class Formula:
    """`a*S**2 + b*S + c` for all S >= minimum that are multiples of `period`.

    Attributes:
        coefficients: a, b, c.
    """

    coefficients: Coefficients
    minimum: int = 0
    period: int = 1

    def at(self, length: int) -> int:
        """The number of pairs at a length.

        Raises:
            ValueError: The formula does not hold there.
        """
        if length < self.minimum or length % self.period:
            raise ValueError(f"the formula holds for S >= {self.minimum} that are multiples of {self.period}")
        a, b, c = self.coefficients
        return int(a * length * length + b * length + c)

    @property
    def expression(self) -> Any:
        """The polynomial in SymPy's symbol S."""
        import sympy

        a, b, c = (sympy.Rational(value.numerator, value.denominator) for value in self.coefficients)
        length = sympy.Symbol("S", integer=True, nonnegative=True)
        forms = (form(a * length**2 + b * length + c) for form in (sympy.expand, sympy.factor))
        return min(forms, key=lambda form: len(str(form)))

    def __str__(self) -> str:
        least = [f"S >= {self.minimum}"] if self.minimum else []
        multiple = [f"S a multiple of {self.period}"] if self.period > 1 else []
        where = ", ".join([*least, *multiple])
        return f"{self.expression}  for {where}" if where else str(self.expression)


def formula(condition: Bool) -> Formula | None:
    """The number of pairs for q_len = kv_len = S.

    None where it reads data, depends on heads, has no such form, or takes too long to find.
    """
    condition = resolved(_inside(condition))
    plain = _for_large(condition)
    if not is_affine(plain) or symbols(plain) - {"q", "k", "kv_len"}:
        return None
    try:
        borders = [border for atom in _comparisons(plain) for border in _borders(atom)]
        period = math.lcm(1, *map(common_period, _comparisons(plain)))
    except _NoFormula:
        return None
    crossed = 2 if any(border.slopes[0] * border.slopes[1] > 0 for border in borders) else 1
    period *= crossed
    if period > MAX_PERIOD:
        return None
    bound = crossed * _last_meeting(borders, period) + _reach_of_lengths(condition)
    bound = -(-bound // period) * period
    coefficients = _fitted(condition, bound, period)
    if coefficients is None:
        return None
    return Formula(coefficients, _lowered(condition, coefficients, bound, period), period)


def _last_meeting(borders: list[_Border], period: int) -> int:
    """No three borders meet at a longer S; the residues add less than 2*P tokens to each one's constant."""
    widest = sorted(border.reach for border in borders)[-3:]
    return math.ceil(sum(widest, Fraction(0))) + 6 * period


def _inside(condition: Bool) -> Bool:
    """Tokens counted from the start as points; that these lie below kv_len is so for every q and k of a square."""
    lists = [part for part in subexpressions(condition) if isinstance(part, Member) and part.position in (Q, K)]
    plain = [part for part in lists if not part.tokens.tensors and min(part.tokens.values, default=0) >= 0]
    return substitute_bool(condition, {p: disj(*(eq(p.position, token) for token in p.tokens.values)) for p in plain})


class _NoFormula(Exception):
    """A comparison is not of the admitted form."""


@dataclass(frozen=True)
class _Border:
    """`slopes . (q, k, S) + constant >= 0`, |constant| <= reach: the largest slope is 1."""

    slopes: tuple[Fraction, Fraction, Fraction]
    reach: Fraction


def _comparisons(condition: Bool) -> list[Le | Eq]:
    match condition:
        case And(args) | Or(args):
            return [atom for arg in args for atom in _comparisons(arg)]
        case Not(arg):
            return _comparisons(arg)
        case Le() | Eq():
            return [condition]
    return []


def _borders(atom: Le | Eq) -> Iterator[_Border]:
    for border in _forms(sub(atom.right, atom.left)):
        steepest = max(map(abs, border.slopes))
        if steepest == 0:
            continue
        a, b, c = (slope / steepest for slope in border.slopes)
        if {a, b, c} - {-1, 0, 1}:
            raise _NoFormula
        yield _Border((a, b, c), border.reach / steepest)


_ZERO = (Fraction(0), Fraction(0), Fraction(0))


def _forms(expr: Expr) -> list[_Border]:
    """The linear forms that `expr` is made of by minima and maxima."""
    match expr:
        case Int(value):
            return [_Border(_ZERO, Fraction(abs(value)))]
        case Sym(name):
            q, k, s = (Fraction(name == symbol) for symbol in ("q", "k", "kv_len"))
            return [_Border((q, k, s), Fraction(0))]
        case FloorDiv(dividend, Int(d)):
            return [_Border(_scaled(form.slopes, Fraction(1, d)), form.reach / d + 1) for form in _forms(dividend)]
        case Mod(dividend, Int(d)):
            if any(isinstance(part, Min | Max) for part in subexpressions(dividend)):
                raise _NoFormula
            return [_Border(_ZERO, Fraction(d))]
        case Min(args) | Max(args):
            return [form for arg in args for form in _forms(arg)]
    return _sums(expr)


def _sums(expr: Expr) -> list[_Border]:
    terms, constant = linear(expr)
    forms = [[(c, form) for form in _forms(term)] for term, c in terms.items()]
    if math.prod(map(len, forms)) > MAX_ALTERNATIVES:
        raise _NoFormula
    return [_sum(parts, constant) for parts in itertools.product(*forms)]


def _sum(parts: tuple[tuple[int, _Border], ...], constant: int) -> _Border:
    slopes = [_scaled(form.slopes, Fraction(c)) for c, form in parts]
    q, k, s = (sum((slope[axis] for slope in slopes), Fraction(0)) for axis in range(3))
    return _Border((q, k, s), sum((abs(c) * form.reach for c, form in parts), Fraction(abs(constant))))


def _scaled(slopes: tuple[Fraction, Fraction, Fraction], factor: Fraction) -> tuple[Fraction, Fraction, Fraction]:
    q, k, s = (slope * factor for slope in slopes)
    return q, k, s


def _for_large(condition: Bool) -> Bool:
    """Minima and maxima over lengths alone as they are for long ones."""
    extremes = [part for part in subexpressions(condition) if isinstance(part, Min | Max)]
    winners: dict[Node, Node] = {part: _winner(part) for part in extremes if symbols(part) == {"kv_len"}}
    return substitute_bool(condition, winners)


def _winner(extreme: Min | Max) -> Expr:
    sign = 1 if isinstance(extreme, Max) else -1
    forms = [linear(arg) for arg in extreme.args]
    if any(set(terms) - {Sym("kv_len")} for terms, _ in forms):
        return extreme
    return max(extreme.args, key=lambda arg: (sign * linear(arg)[0].get(Sym("kv_len"), 0), sign * linear(arg)[1]))


def _reach_of_lengths(condition: Bool) -> int:
    """From here on the winners of `_for_large` have won."""
    extremes = [part for part in subexpressions(condition) if isinstance(part, Min | Max)]
    return sum(abs(linear(arg)[1]) for part in extremes for arg in part.args)


def _fitted(condition: Bool, bound: int, period: int) -> Coefficients | None:
    """The polynomial through three counts, if two more lie on it."""
    lengths = [bound + i * period for i in range(5)]
    try:
        counts = [count(condition, length, length) for length in lengths]
    except UnsupportedError:
        return None
    if None in counts:
        return None
    x, y = ([Fraction(value or 0) for value in values[:3]] for values in (lengths, counts))
    first, second = (y[1] - y[0]) / period, (y[2] - y[1]) / period
    a = (second - first) / (2 * period)
    b = first - a * (x[0] + x[1])
    c = y[0] - a * x[0] ** 2 - b * x[0]
    fits = all(a * length**2 + b * length + c == n for length, n in zip(lengths, counts, strict=True))
    return (a, b, c) if fits else None


def _lowered(condition: Bool, coefficients: Coefficients, bound: int, period: int) -> int:
    """The least S from which the polynomial holds, as far as counts below `bound` tell."""
    if bound > MAX_LOWERED:
        return bound
    a, b, c = coefficients
    lowest = bound
    for length, pairs in _counts_below(condition, bound, period):
        if a * length**2 + b * length + c != pairs:
            break
        lowest = length
    return lowest


def _counts_below(condition: Bool, bound: int, period: int) -> Iterator[tuple[int, int]]:
    """(S, pairs) for multiples of the period below `bound`, descending."""
    lengths = range(bound - period, -1, -period)
    by_row = None if "kv_len" in symbols(condition) else _counts_by_row(condition, bound)
    if by_row is not None:
        yield from ((length, int(by_row[length])) for length in lengths)
    elif len(lengths) <= MAX_LENGTHS:
        yield from ((length, count(condition, length, length) or 0) for length in lengths[:MAX_COUNTS])


def _counts_by_row(condition: Bool, bound: int) -> Any:
    """Pairs for S = 0 .. bound: a longer square adds row S-1 up to its diagonal and column S-1 above it."""
    transposed = substitute_bool(condition, {Q: K, K: Q})
    rows = row_counts(conj(condition, le(K, Q)), bound, bound)
    columns = row_counts(conj(transposed, lt(K, Q)), bound, bound)
    return None if rows is None or columns is None else np.concatenate([[0], np.cumsum(rows + columns)])
