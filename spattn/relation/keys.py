"""How a row's keys follow from a condition: where its truth may change, and with which period it repeats.

At a fixed row a comparison is one of three: free of k, periodic in k, or constant between few *cuts*, positions that
are formulas in q. Between the cuts a condition is a periodic function of k: its keys are counted without being visited.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spattn.expressions.algebra import add, floordiv, linear, mod, scale, sub, subexpressions, substitute_bool, symbols
from spattn.expressions.evaluation import IntArray, evaluate
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
    Min,
    Mod,
    Mul,
    Node,
    Not,
    Or,
    Read,
    Sym,
)
from spattn.expressions.tensors import NOTHING

MAX_STAIR = 2**14  # of a period


class NoForm(Exception):
    """A comparison is neither free of k nor periodic nor constant between cuts."""


def has_key(node: Node) -> bool:
    """Does k occur in `node`?"""
    return "k" in symbols(node)


def comparisons(condition: Bool) -> list[Bool]:
    """The distinct atoms of a condition in which k occurs."""
    match condition:
        case And(args) | Or(args):
            found = [atom for arg in args for atom in comparisons(arg)]
        case Not(arg):
            found = comparisons(arg)
        case _:
            found = [condition] if has_key(condition) else []
    return list(dict.fromkeys(found))


def is_periodic(atom: Bool) -> bool:
    """Is the atom a comparison that repeats in k?"""
    match atom:
        case Le(left, right) | Eq(left, right):
            return period(sub(right, left)) is not None
    return False


def atom_period(atom: Bool) -> int:
    """The period in k of a periodic comparison."""
    assert isinstance(atom, Le | Eq)
    found = period(sub(atom.right, atom.left))
    assert found is not None
    return found


def period(expr: Expr) -> int | None:
    """P with expr(k + P) = expr(k) for all k; None where there is none by construction."""
    if not has_key(expr):
        return 1
    match expr:
        case Mod(dividend, Int(divisor)) if divisor > 0:
            return _period_modulo(dividend, divisor)
        case FloorDiv(inner, Int()) | Mod(inner, Int()):
            return period(inner)
        case Min(args) | Max(args):
            return _common([period(arg) for arg in args])
    terms, _ = linear(expr)
    return None if set(terms) == {expr} else _common([period(term) for term in terms])


def _period_modulo(expr: Expr, modulus: int) -> int | None:
    """P with expr(k + P) = expr(k) modulo `modulus`."""
    if not has_key(expr):
        return 1
    match expr:
        case Sym():
            return modulus
        case FloorDiv(dividend, Int(divisor)) if divisor > 0:
            return _period_modulo(dividend, modulus * divisor)
    terms, _ = linear(expr)
    if set(terms) == {expr}:
        return period(expr)
    return _common([_period_modulo(term, modulus // math.gcd(modulus, c)) for term, c in terms.items()])


def _common(periods: list[int | None]) -> int | None:
    known = [found for found in periods if found is not None]
    return math.lcm(*known) if len(known) == len(periods) else None


def row_keys(atom: Bool) -> list[Expr]:
    """Expressions free of k whose values at a row determine a periodic comparison as a function of k."""
    assert isinstance(atom, Le | Eq)
    return _row_keys(sub(atom.right, atom.left), None)


def _row_keys(expr: Expr, modulus: int | None) -> list[Expr]:
    if not has_key(expr):
        free = expr if modulus is None else mod(expr, modulus)
        return [] if isinstance(free, Int) else [free]
    match expr:
        case Sym():
            return []
        case Mod(dividend, Int(divisor)):
            return _row_keys(dividend, divisor)
        case FloorDiv(dividend, Int(divisor)):
            return _row_keys(dividend, None if modulus is None else modulus * divisor)
        case Min(args) | Max(args):
            return [key for arg in args for key in _row_keys(arg, None)]
    terms, _ = linear(expr)
    free = add(0, *(scale(term, c) for term, c in terms.items() if not has_key(term)))
    return [*_row_keys(free, modulus), *(key for term in terms if has_key(term) for key in _row_keys(term, modulus))]


def unshifted(atoms: tuple[Bool, ...]) -> tuple[Expr, tuple[Bool, ...]]:
    """(shift, atoms free of q): periodic comparisons of k + shift; 0 and the atoms themselves if none is found."""
    parts = dict.fromkeys(part.dividend for atom in atoms for part in subexpressions(atom) if isinstance(part, Mod))
    for sign, rest in filter(None, map(position_of, parts)):
        moved = tuple(substitute_bool(atom, {K: sub(K, scale(rest, sign))}) for atom in atoms)
        if not any("q" in symbols(atom) for atom in moved):
            return scale(rest, sign), moved
    return Int(0), atoms


@dataclass(frozen=True)
class Stair:
    """The least k with `g(k) >= bound`, for a g that never falls and has g(k + period) = g(k) + rise.

    Attributes:
        steps: g(0), .., g(period - 1).
    """

    steps: tuple[int, ...]
    rise: int
    bound: Expr

    def position(self, bound: IntArray) -> IntArray:
        """It at the bound's values."""
        whole = -((self.steps[-1] - bound) // self.rise)
        return np.asarray(whole * len(self.steps) + np.searchsorted(self.steps, bound - whole * self.rise))


Cut = Expr | Stair


def cuts(atom: Bool) -> list[Cut]:
    """Positions such that the atom is constant for all k between two neighbours.

    Raises:
        NoForm: k stands in more than one place, or under what cannot be solved for it.
    """
    match atom:
        case Le(left, right):
            return _sign_changes(sub(right, left))
        case Eq(left, right):
            return [*_sign_changes(sub(right, left)), *_sign_changes(sub(left, right))]
    raise NoForm


def _sign_changes(slack: Expr) -> list[Cut]:
    """Where `slack >= 0` may change as k grows."""
    terms, _ = linear(slack)
    with_key = [(term, c) for term, c in terms.items() if has_key(term)]
    if not with_key:
        return []
    if len(with_key) > 1:
        return [_stair(add(0, *(scale(term, c) for term, c in with_key)), slack)]
    ((term, c),) = with_key
    rest = sub(slack, scale(term, c))
    match term:
        case Sym("k"):
            return [_least(rest, c) if c > 0 else add(floordiv(rest, -c), 1)]
        case FloorDiv(dividend, Int(d)) if d > 0 and c > 0:
            return _sign_changes(sub(dividend, scale(_least(rest, c), d)))
        case FloorDiv(dividend, Int(d)) if d > 0:
            return _sign_changes(sub(add(scale(floordiv(rest, -c), d), d - 1), dividend))
        case Min(args) | Max(args):
            return [cut for arg in args for cut in _sign_changes(add(scale(arg, c), rest))]
    raise NoForm


def _stair(g: Expr, slack: Expr) -> Cut:
    """Where `slack >= 0` changes, `slack - g` free of k."""
    size = _divisors(g)
    if symbols(g) != {"k"} or size > MAX_STAIR or any(isinstance(part, Mul | Read) for part in subexpressions(g)):
        raise NoForm
    steps = np.asarray(evaluate(g, {"k": np.arange(size + 1)}, NOTHING))
    rest = sub(slack, g)
    if (np.diff(steps) <= 0).all():
        # g + rest >= 0 as long as -g <= rest, that is until -g >= rest + 1
        steps, bound = -steps, add(rest, 1)
    else:
        bound = scale(rest, -1)
    if (np.diff(steps) < 0).any() or steps[-1] == steps[0]:
        raise NoForm
    return Stair(tuple(map(int, steps[:-1])), int(steps[-1] - steps[0]), bound)


def _divisors(expr: Expr) -> int:
    """P with g(k + P) - g(k) constant, for sums of floors and remainders."""
    match expr:
        case Int() | Sym():
            return 1
        case FloorDiv(dividend, Int(d)) | Mod(dividend, Int(d)) if d > 0:
            return d * _divisors(dividend)
        case Min() | Max():
            raise NoForm
    terms, _ = linear(expr)
    if set(terms) == {expr}:
        raise NoForm
    return math.lcm(*map(_divisors, terms))


def common_period(node: Node) -> int:
    """A common multiple of what divides in an affine comparison or expression, divisions of divisions multiplied."""
    match node:
        case FloorDiv(dividend, Int(d)) | Mod(dividend, Int(d)):
            return d * common_period(dividend)
        case Le(left, right) | Eq(left, right):
            return math.lcm(common_period(left), common_period(right))
        case Min(args) | Max(args):
            return math.lcm(1, *map(common_period, args))
        case Int() | Sym():
            return 1
    assert isinstance(node, Expr)
    return math.lcm(1, *map(common_period, linear(node)[0]))


def _least(rest: Expr, c: int) -> Expr:
    """The least x with `c*x + rest >= 0`, c > 0."""
    return floordiv(add(scale(rest, -1), c - 1), c)


def position_of(position: Expr) -> tuple[int, Expr] | None:
    """(sign, rest) if `position = sign*k + rest` with sign 1 or -1 and a rest free of k."""
    terms, _ = linear(position)
    sign = terms.get(K, 0)
    rest = sub(position, scale(K, sign))
    return None if abs(sign) != 1 or has_key(rest) else (sign, rest)
