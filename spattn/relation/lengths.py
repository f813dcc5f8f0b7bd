"""Expressions of the length alone: between which lines they lie, for all kv_len >= 1."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from spattn.expressions.algebra import linear, substitute
from spattn.expressions.nodes import KV_LEN, Expr, FloorDiv, Int, Max, Min, Mod


@dataclass(frozen=True)
class Band:
    """`slope * kv_len + low <= expression <= slope * kv_len + high`."""

    slope: Fraction
    low: Fraction
    high: Fraction

    @property
    def constant(self) -> bool:
        """Is the expression a constant?"""
        return self.slope == 0 and self.low == self.high

    def scaled(self, factor: Fraction | int) -> Band:
        """Of `factor * expression`."""
        ends = sorted((self.low * factor, self.high * factor))
        return Band(self.slope * factor, *ends)

    def shifted(self, low: Fraction | int, high: Fraction | int) -> Band:
        """Of the expression plus something between `low` and `high`."""
        return Band(self.slope, self.low + low, self.high + high)


def band(expr: Expr) -> Band | None:
    """The lines around a sum of lengths, floors and remainders; None of others."""
    terms, constant = linear(expr)
    total = Band(Fraction(0), Fraction(constant), Fraction(constant))
    for term, coefficient in terms.items():
        found = _of_term(term)
        if found is None:
            return None
        found = found.scaled(coefficient)
        total = Band(total.slope + found.slope, total.low + found.low, total.high + found.high)
    return total


def _of_term(term: Expr) -> Band | None:
    match term:
        case _ if term == KV_LEN:
            return Band(Fraction(1), Fraction(0), Fraction(0))
        case Mod(_, Int(d)) if d > 0:
            return Band(Fraction(0), Fraction(0), Fraction(d - 1))
        case FloorDiv(dividend, Int(d)) if d > 0:
            inner = band(dividend)
            return None if inner is None else inner.shifted(1 - d, 0).scaled(Fraction(1, d))
    return None


def never_negative(expr: Expr) -> bool:
    """Is it proved that `expr >= 0` for all kv_len >= 1?"""
    match expr:
        case Max(args):
            return any(map(never_negative, args))
        case Min(args):
            return all(map(never_negative, args))
    if rising(expr):
        least = substitute(expr, {KV_LEN: Int(1)})
        return isinstance(least, Int) and least.value >= 0
    found = band(expr)
    return found is not None and found.slope >= 0 and found.slope + found.low >= 0


def rising(expr: Expr) -> bool:
    """Does it never fall as the length grows?"""
    match expr:
        case FloorDiv(dividend, Int(d)):
            return d > 0 and rising(dividend)
    terms, _ = linear(expr)
    return all(c > 0 and (term == KV_LEN or isinstance(term, FloorDiv) and rising(term)) for term, c in terms.items())
