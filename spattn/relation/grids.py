"""Conditions that are a product over the axes of a row-major grid: neighbourhoods, in whatever words.

On a line of tokens a 13 x 13 window is 13 pieces a row apart; on the grid it is one box. Recognised where both
positions are bounded by the grid and every other condition speaks of one coordinate of q and the same of k.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from spattn.expressions.algebra import conj, floordiv, subexpressions, substitute_bool, symbols
from spattn.expressions.nodes import And, Bool, Expr, FloorDiv, Int, K, Le, Mod, Node, Q, Sym
from spattn.frontend.grids import coordinates


@dataclass(frozen=True)
class GridCondition:
    """`q` and `k` lie on the grid of `shape`, and `axes[i]` holds for their coordinates on axis i, called q and k."""

    shape: tuple[int, ...]
    axes: tuple[Bool, ...]


@lru_cache(maxsize=256)
def on_grid(condition: Bool) -> GridCondition | None:
    """`condition` as a product over the axes of a grid of two or three; None where it is none."""
    if not isinstance(condition, And):
        return None
    size = _size(condition)
    shapes = () if size is None else _shapes(condition, size)
    return next(filter(None, (_as_product(condition, shape) for shape in shapes)), None)


def _as_product(condition: And, shape: tuple[int, ...]) -> GridCondition | None:
    parts = [part for part in condition.args if part not in _bounds(prod(shape))]
    names = _names(condition, shape)
    axes: list[list[Bool]] = [[] for _ in shape]
    for part in parts:
        axis = _axis(substitute_bool(part, names), len(shape))
        if axis is None:
            return None
        axes[axis[0]].append(axis[1])
    return GridCondition(shape, tuple(conj(*part) for part in axes))


def _names(condition: Bool, shape: tuple[int, ...]) -> dict[Node, Node]:
    """q0, q1, .. and k0, k1, .. for the coordinates; the slowest may stand inside a longer division."""
    names: dict[Node, Node] = {}
    for position in (Q, K):
        for axis, coordinate in enumerate(coordinates(position, shape)):
            names[coordinate] = Sym(f"{position.name}{axis}")
    inner = prod(shape[1:])
    for node in subexpressions(condition):
        match node:
            case FloorDiv(Sym(("q" | "k") as name), Int(divisor)) if divisor > inner and divisor % inner == 0:
                names[node] = floordiv(Sym(f"{name}0"), divisor // inner)
    return names


def _bounds(size: int) -> set[Bool]:
    return {Le(Int(0), p) for p in (Q, K)} | {Le(p, Int(size - 1)) for p in (Q, K)}


def _size(condition: And) -> int | None:
    """Tokens of the grid, where both positions are bounded by it."""
    for part in condition.args:
        match part:
            case Le(Sym("q"), Int(last)) if _bounds(last + 1) <= set(condition.args):
                return last + 1
    return None


def _shapes(condition: And, size: int) -> Iterator[tuple[int, ...]]:
    """Shapes that the grid may have, read off the remainders taken of q; a dilation takes remainders too."""
    nodes: list[Node] = subexpressions(condition)
    widths = [width for width in _moduli(nodes, Q) if size % width == 0]
    for width in widths:
        heights = _moduli(nodes, FloorDiv(Q, Int(width)))
        yield from ((size // (width * height), height, width) for height in heights if size % (width * height) == 0)
    yield from ((size // width, width) for width in widths)


def _moduli(nodes: list[Node], dividend: Expr) -> list[int]:
    """What remainders of `dividend` are taken by."""
    found: dict[int, None] = {}
    for node in nodes:
        match node:
            case Mod(inner, Int(divisor)) if inner == dividend:
                found[divisor] = None
    return list(found)


def _axis(part: Bool, rank: int) -> tuple[int, Bool] | None:
    """(axis, condition over its coordinates q and k) of a condition on one axis; None for any other."""
    names = symbols(part)
    for axis in range(rank):
        if names <= {f"q{axis}", f"k{axis}"}:
            return axis, substitute_bool(part, {Sym(f"q{axis}"): Q, Sym(f"k{axis}"): K})
    return None
