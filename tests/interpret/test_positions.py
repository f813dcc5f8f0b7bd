"""Where rows and keys stand, by generated kernels: drawn positions against the oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spattn
from spattn.frontend.parser import parse
from tests import strategies
from tests.placements import answers, expected, placements

pytestmark = pytest.mark.interpret
HEADS = 2, 1
PATTERNS = (
    "causal",
    "last(4)",
    "local(3) | columns([0, 2, -1])",
    "strided(3) & causal",
    "chunk(5) & causal",
    "random(2, block=4) | last(2)",
    "blocks(table, size=4)",
    "within(ids, causal)",
    "rows([1, -2]) | last(2)",
    "neighborhood([4, 5], 3)",
    "columns([tokens]) | last(2)",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_part_of_the_keys(pattern: str) -> None:
    @settings(max_examples=3)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        node, drawn = parse(pattern), data.draw(placements(("numbers",)))
        tensors = data.draw(strategies.tensors_for(node, drawn.q_len, drawn.kv_len, len(drawn.entries), HEADS[0]))
        inputs = drawn.inputs(0, HEADS, 16)
        attn = spattn.compile(pattern, backend="triton")
        found = answers(attn, drawn, inputs, {name: torch.as_tensor(x) for name, x in tensors.items()})
        for mine, wanted in zip(found, expected(node, drawn, inputs, tensors), strict=True):
            torch.testing.assert_close(mine.double(), wanted, atol=1e-4, rtol=1e-4)

    check()
