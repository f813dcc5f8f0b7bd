"""Which expressions may pass 32 bits, at the longest lengths."""

from __future__ import annotations

import pytest

from spattn.expressions.algebra import add, floordiv, le, mod, mul, scale, sub
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import Expr, Int, K, Node, Q, Sym
from spattn.expressions.tensors import NOTHING
from spattn.expressions.width import FIRST, LONGEST, Width

WIDTH = Width({"u": (0, 99)})
NARROW: tuple[Node, ...] = (
    Q,
    sub(Q, K),
    add(sub(Q, K), -LONGEST // 2),
    le(sub(Q, K), 2**29),
    floordiv(Q, 3),
    mod(sub(Q, K), 128),
    scale(Sym("u"), 1000),
    mul(Sym("u"), Sym("u")),
)
WIDE: tuple[Node, ...] = (
    Int(2**31),
    add(Q, K, K),
    scale(K, 3),
    mul(Q, K),
    le(scale(Q, 10**9), K),
    add(sub(Q, K), -(2**31)),
    mod(mul(Q, Q), 7),
    floordiv(scale(K, 5), 3),
    le(sub(Q, K), 2**31 - 1),
)


@pytest.mark.parametrize("node", NARROW, ids=str)
def test_what_fits(node: Node) -> None:
    assert Width().fits(node) or WIDTH.fits(node)


@pytest.mark.parametrize("node", WIDE, ids=str)
def test_what_may_not_fit(node: Node) -> None:
    assert not Width().fits(node)


@pytest.mark.parametrize("expr", [Q, sub(Q, K), floordiv(scale(K, 5), 3), mod(Q, 12), mul(K, K)], ids=str)
def test_an_extent_holds_the_values_at_the_ends(expr: Expr) -> None:
    least, greatest = Width().extent(expr)
    for q in (FIRST, 0, LONGEST - 1):
        for k in (0, LONGEST - 1):
            assert least <= int(evaluate(expr, {"q": q, "k": k}, NOTHING)) <= greatest
