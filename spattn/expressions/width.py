"""Whether the integers of an expression fit 32 bits, as generated kernels count, at every length that is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spattn.expressions.algebra import subexpressions
from spattn.expressions.nodes import MAX_BITS, Expr, FloorDiv, Int, Length, Max, Min, Mod, Mul, Node, Select, Sum, Sym

LONGEST = 1 << 30
"""No position reaches it, and no length passes it."""
FIRST = -(1 << 29)
"""No query stands before it."""

Extent = tuple[int, int]

POSITION: Extent = (FIRST, LONGEST)
LENGTH: Extent = (0, LONGEST)
KNOWN: Mapping[str, Extent] = {
    **dict.fromkeys(("k", "kv_len", "h", "b", "c", "num_heads", "batch_size"), LENGTH),
    # each stands beside an offset, and their sum is a position
    "q_len": (0, 0),
    "num_keys": (0, 0),
}


@dataclass(frozen=True)
class Width:
    """What is known of symbols.

    Attributes:
        known: The least and the greatest value of each; of others, that they are positions.
    """

    known: Mapping[str, Extent] = field(default_factory=lambda: KNOWN)

    def fits(self, node: Node) -> bool:
        """Do all numbers that come up when `node` is evaluated fit 32 bits, sign included?"""
        numbers = (part for part in subexpressions(node) if isinstance(part, Expr))
        return all(least >= -(1 << 31) and greatest < 1 << 31 for least, greatest in map(self.extent, numbers))

    def extent(self, expr: Expr) -> Extent:
        """The least and the greatest value; what tensors hold counts as positions do."""
        match expr:
            case Int(value):
                return value, value
            case Sym(name):
                return self.known.get(name, POSITION)
            case Length():  # of tensors of drafts, which are asked for it
                return 0, MAX_BITS
            case Sum(terms, constant):
                ends = [sorted(coefficient * end for end in self.extent(term)) for term, coefficient in terms]
                return constant + sum(low for low, _ in ends), constant + sum(high for _, high in ends)
            case Mul(left, right):
                products = [a * b for a in self.extent(left) for b in self.extent(right)]
                return min(products), max(products)
            case FloorDiv(dividend, Int(divisor)):
                least, greatest = self.extent(dividend)
                return least // divisor, greatest // divisor
            case Mod(_, Int(divisor)):
                return 0, divisor - 1
            case Min(args) | Max(args):
                lows, highs = zip(*map(self.extent, args), strict=True)
                choose = min if isinstance(expr, Min) else max
                return choose(lows), choose(highs)
            case Select(_, then, otherwise):
                lows, highs = zip(self.extent(then), self.extent(otherwise), strict=True)
                return min(lows), max(highs)
        return POSITION
