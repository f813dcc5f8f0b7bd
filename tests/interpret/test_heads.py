"""What kernels know of heads and batch entries, where the pattern's positions are a document's or those of blocks."""

from __future__ import annotations

import pytest
import torch

from tests.kernels import check, check_gradients, drawn, plans

pytestmark = pytest.mark.interpret

LENGTH = 37
TENSORS = {"ids": torch.tensor([0] * 9 + [1] * 20 + [2] * 8), "x": torch.arange(5) * 7}
APART = (
    "within(ids, heads([-1]) & causal)",
    "within(ids, where(num_heads > 2) & last(4) | batch([-1]))",
    "blockwise(8, heads([-1]) | local(1)) & where(batch_size > 1 or h < 2)",
)
MIXED = (
    "where(q < num_heads * 4)",
    "where(k < h + 2) | last(3)",
    "within(ids, where(q - k < num_heads + h)) & where(k < 9 * batch_size)",
    "blockwise(4, where(k % 3 == min(num_heads, 2) // 2))",
    "where(x[num_heads] * num_heads > q * batch_size)",
)


@pytest.mark.parametrize("pattern", [*APART, *MIXED])
def test_heads_and_batch_entries_in_every_frame(pattern: str) -> None:
    tensors = {name: TENSORS[name] for name in dict(plans(pattern).compiled.roles)}
    given = drawn(LENGTH, LENGTH, batch=2, heads=(4, 2), tensors=tensors)
    check(pattern, given)
    check_gradients(pattern, given)


@pytest.mark.parametrize("pattern", APART)
def test_kernels_of_their_own_ask_nothing(pattern: str) -> None:
    assert plans(pattern).compiled.pair_conditions
