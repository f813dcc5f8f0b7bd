"""Every atom, every index map: the generated kernels in Triton's interpreter against the oracle in float64."""

from __future__ import annotations

import pytest

from spattn.frontend.parser import parse
from tests.kernels import check, drawn
from tests.layout.patterns import PICKED, tensors

pytestmark = pytest.mark.interpret

# around the edges of tiles of 16: (q_len, kv_len, batch entries)
LENGTHS = ((17, 49, 1), (33, 31, 1), (1, 33, 2), (15, 16, 1), (16, 1, 1), (0, 5, 1), (5, 0, 1))


PATTERNS = PICKED | {
    "tokens of documents": "within(ids, columns([tokens]) | diagonals([tokens]))",
    "many tokens of documents": "within(ids, columns([0, 2, 3, 4, 5, 6, 7, 9, -1, -2]) | last(2))",
}


@pytest.mark.parametrize("name", PATTERNS)
def test_kernels_agree_with_the_oracle(name: str) -> None:
    node = parse(PATTERNS[name])
    for q_len, kv_len, batch in LENGTHS:
        check(node, drawn(q_len, kv_len, batch=batch, heads=(2, 1), tensors=tensors(node, kv_len, batch)))
