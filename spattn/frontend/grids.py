"""Atoms on blocks of positions and on grids of 1, 2 or 3 dimensions.

The neighbourhood is NATTEN's: each axis falls into `dilation` residue classes, `stride` queries of a class share the
window of their leader, and at a border the window is shifted inwards, so that each query keeps `kernel` keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from spattn.expressions.algebra import (
    add,
    conj,
    eq,
    floordiv,
    le,
    lt,
    maximum,
    minimum,
    mod,
    scale,
    sub,
)
from spattn.expressions.nodes import Bool, Expr, K, Q
from spattn.frontend.spec import Arguments, AtomSpec, Kind, Parameter
from spattn.frontend.syntax import Flag, Integer, Name


@dataclass(frozen=True)
class Axis:
    """One axis of a grid and the window on it."""

    length: int
    kernel: int
    stride: int
    dilation: int
    causal: bool
    cut: bool

    def sees(self, q: Expr, k: Expr) -> Bool:
        """Does the query at `q` see the key at `k`, both coordinates of this axis?"""
        d = self.dilation
        same_class = eq(mod(sub(q, k), d), 0)
        q_in, k_in = floordiv(q, d), floordiv(k, d)
        members = floordiv(sub(self.length + d - 1, mod(q, d)), d)
        window = self._causal(q_in, k_in, members) if self.causal else self._around(q_in, k_in, members)
        return conj(same_class, window)

    def _causal(self, q: Expr, k: Expr, members: Expr) -> Bool:
        behind = sub(self._leader(q, self.stride - 1, members), k)
        return conj(le(k, q), le(0, behind), lt(behind, self.kernel))

    def _around(self, q: Expr, k: Expr, members: Expr) -> Bool:
        start = sub(self._leader(q, self.stride // 2, members), self.kernel // 2)
        if not self.cut:
            start = maximum(minimum(start, sub(members, self.kernel)), 0)
        return conj(le(start, k), lt(k, add(start, self.kernel)))

    def _leader(self, q: Expr, place: int, members: Expr) -> Expr:
        first = scale(floordiv(q, self.stride), self.stride)
        return q if self.stride == 1 else minimum(add(first, place), sub(members, 1))


def _neighborhood(a: Arguments) -> Bool:
    rank = a.rank("grid")
    if rank > 3:
        raise a.wrong(f"a grid has 1 to 3 axes, not {rank}")
    columns = [a.axes(name, rank) for name in ("grid", "kernel", "stride", "dilation", "causal")]
    axes = [Axis(n, k, s, d, bool(c), a.word("border") == "cut") for n, k, s, d, c in zip(*columns, strict=True)]
    grid = columns[0]
    inside = [conj(le(0, x), lt(x, prod(grid))) for x in (Q, K)]
    pairs = zip(axes, coordinates(Q, grid), coordinates(K, grid), strict=True)
    return conj(*inside, *(axis.sees(q, k) for axis, q, k in pairs))


def coordinates(position: Expr, grid: tuple[int, ...]) -> list[Expr]:
    """The coordinates of a token in a row-major grid, the slowest first."""
    result = []
    for axis in range(len(grid)):
        along = floordiv(position, prod(grid[axis + 1 :]))
        result.append(mod(along, grid[axis]) if axis else along)
    return result


GRIDS = (
    AtomSpec(
        "neighborhood",
        (
            (
                Parameter("grid", Kind.AXES, minimum=1),
                Parameter("kernel", Kind.AXES, minimum=1),
                Parameter("stride", Kind.AXES, Integer(1), minimum=1, keyword_only=True),
                Parameter("dilation", Kind.AXES, Integer(1), minimum=1, keyword_only=True),
                Parameter("causal", Kind.FLAGS, Flag(False), keyword_only=True),
                Parameter("border", Kind.BORDER, Name("shift"), keyword_only=True),
            ),
        ),
        _neighborhood,
        "NATTEN's neighbourhood on a row-major grid of 1 to 3 axes: on each axis a window of `kernel` keys around the "
        "query, shifted inwards at a border (border=cut cuts it); tokens past the grid see and show nothing.",
    ),
    AtomSpec(
        "blockwise",
        ((Parameter("s", minimum=1), Parameter("A", Kind.PATTERN)),),
        lambda a: a.pattern("A", a.integer("s")),
        "A on blocks of s tokens: A holds for q//s, k//s and ceil(kv_len/s).",
    ),
)
