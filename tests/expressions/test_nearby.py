"""What holds nearby holds wherever the condition holds of a query a little before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spattn.expressions.algebra import subexpressions
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nearby import nearby
from spattn.expressions.nodes import Read
from spattn.expressions.tensors import Tensors
from spattn.expressions.text import text
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Node
from tests.strategies import patterns

N = 40
ENV = {"kv_len": N, "h": 1, "b": 0, "num_heads": 2, "batch_size": 1}


@given(patterns(depth=2, guards=False), st.integers(0, 9))
def test_it_holds_wherever_the_condition_holds_before(node: Node, back: int) -> None:
    condition = meaning(node)
    q, k = np.arange(-back, N)[:, None], np.arange(N)[None, :]
    exact, wide = (
        np.broadcast_to(evaluate(one, {**ENV, "q": q, "k": k}, Tensors({}, N)), (N + back, N))
        for one in (condition, nearby(condition, back))
    )
    for row in range(back, N + back):
        assert not (exact[row - back : row + 1].any(0) & ~wide[row]).any()


@pytest.mark.parametrize(
    ("pattern", "wide"),
    [
        ("causal", "k <= q"),
        ("last(8)", "q <= k + 12 and k <= q"),
        ("columns([3])", "k in [3]"),
        ("chunk(10)", "((q + 5) // 10) <= (k // 10) + 1 and (k // 10) <= (q // 10)"),
        ("strided(4)", "true"),
        ("where(x[q] > k)", "true"),
    ],
)
def test_its_bounds(pattern: str, wide: str) -> None:
    found = nearby(meaning(parse(pattern)), 5)
    assert set(text(found).split(" and ")) == set(wide.split(" and "))
    assert not any(isinstance(part, Read) for part in subexpressions(found))
