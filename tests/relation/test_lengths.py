"""Lines around expressions of the length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spattn.expressions.algebra import add, floordiv, maximum, minimum, mod, scale, sub
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import KV_LEN, Expr, Int
from spattn.expressions.tensors import Tensors
from spattn.relation.lengths import band, never_negative

NOTHING = Tensors({}, 0)
SMALL = st.integers(-20, 70)


@st.composite
def lengths(draw: st.DrawFn, depth: int = 3) -> Expr:
    if depth == 0:
        return draw(st.sampled_from([KV_LEN, Int(draw(SMALL))]))
    one, other = draw(lengths(depth=depth - 1)), draw(lengths(depth=depth - 1))
    match draw(st.sampled_from(["add", "scale", "floor", "mod", "max", "min"])):
        case "add":
            return add(one, other)
        case "scale":
            return scale(one, draw(st.sampled_from([-64, -3, -1, 2, 8])))
        case "floor":
            return floordiv(one, draw(st.integers(1, 9)))
        case "mod":
            return mod(one, draw(st.integers(1, 9)))
        case "max":
            return maximum(one, other)
    return minimum(one, other)


@given(lengths(), st.lists(st.integers(1, 500), min_size=1, max_size=20))
def test_what_is_proved_holds(expr: Expr, values: list[int]) -> None:
    found, positive = band(expr), never_negative(expr)
    for length in (1, *values):
        value = int(evaluate(expr, {"kv_len": length}, NOTHING))
        assert not positive or value >= 0
        assert found is None or found.low <= value - found.slope * length <= found.high


def test_blocks() -> None:
    blocks = floordiv(add(KV_LEN, 63), 64)
    first = scale(sub(blocks, 1), 64)
    assert never_negative(first)
    assert never_negative(sub(scale(blocks, 64), KV_LEN))
    before_end = band(sub(first, KV_LEN))
    assert before_end is not None
    assert (before_end.slope, before_end.low, before_end.high) == (0, -64, -1)
