"""A tile that is called certain has every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spattn.expressions.algebra import negate
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import FALSE, TRUE
from spattn.expressions.tensors import Tensors
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.layout.full_tiles import certain

PATTERNS = (
    "local(5)",
    "causal & last(9)",
    "chunk(8) & causal",
    "global([0:6])",
    "fixed(4, 2)",
    "where(q // 3 >= k // 2)",
    "where(q + k < 30)",
    "strided(3)",
)
NOTHING = Tensors({}, 0)


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
@given(ends=st.tuples(*[st.integers(0, 24)] * 2), sides=st.tuples(*[st.integers(1, 9)] * 2))
def test_certain_tiles_are_whole(pattern: str, negated: bool, ends: tuple[int, int], sides: tuple[int, int]) -> None:
    condition = meaning(parse(pattern))
    condition = negate(condition) if negated else condition
    (u0, k0), (rows, keys) = ends, sides
    lengths = {"kv_len": 32, "q_len": 32}
    tile = {"u0": u0, "u1": u0 + rows - 1, "k0": k0, "k1": k0 + keys - 1}
    if evaluate(certain(condition), {**tile, **lengths}, NOTHING):
        q, k = u0 + np.arange(rows)[:, None], k0 + np.arange(keys)[None]
        assert np.all(evaluate(condition, {"q": q, "k": k, **lengths}, NOTHING))


def test_what_is_certain() -> None:
    inside = {"u0": 100, "u1": 163, "k0": 64, "k1": 127}
    assert evaluate(certain(meaning(parse("local(128)"))), inside, NOTHING)
    assert not evaluate(certain(meaning(parse("local(64)"))), inside, NOTHING)
    assert certain(meaning(parse("full"))) == TRUE
    assert certain(meaning(parse("strided(3)"))) == FALSE
