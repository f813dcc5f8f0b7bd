"""The ladder: what a drawn pattern means, pair by pair, is what its layout visits and what both backends compute.

The first rung that differs names the guilty stage.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spattn import oracle
from spattn.backends.torch import attention
from spattn.call.positions import Positions
from spattn.call.prepared import Prepared
from spattn.call.request import Request
from spattn.frontend.meaning import meaning
from spattn.frontend.syntax import Node
from spattn.layout.planner import plan
from spattn.layout.rebuild import layout_mask
from tests.kernels import TILES, TOLERANCE, drawn, expected, mask_of, run
from tests.strategies import patterns, q_offsets, tensors_for

pytestmark = pytest.mark.interpret

EXAMPLES = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else 25
BATCH, HEADS = 1, 2


@settings(max_examples=EXAMPLES)
@given(st.data(), patterns(depth=2), st.integers(0, 36), st.integers(0, 36), q_offsets(36))
def test_every_rung_agrees(data: st.DataObject, node: Node, q_len: int, kv_len: int, q_offset: int | None) -> None:
    tensors = data.draw(tensors_for(node, q_len, kv_len, BATCH, HEADS))
    tile = data.draw(st.sampled_from(TILES))
    inputs = drawn(q_len, kv_len, batch=BATCH, heads=(HEADS, 1), tensors=tensors, q_offset=q_offset)
    mask = mask_of(node, inputs)
    layout = plan(meaning(node))

    sizes = {"num_heads": HEADS, "batch_size": BATCH, "tensors": tensors, "q_offset": q_offset}
    rebuilt = layout_mask(layout, q_len, kv_len, block_m=16, block_n=16, **sizes)
    np.testing.assert_array_equal(np.broadcast_to(rebuilt, mask.shape), mask.numpy())

    wanted, wanted_lse = expected(node, inputs, mask)
    given_tensors = Prepared({name: torch.as_tensor(value) for name, value in tensors.items()})
    positions = Positions.usual(q_len, kv_len, q_offset)
    request = Request(inputs.q, inputs.k, inputs.v, 16**-0.5, positions, given_tensors)
    everybody = [(layout, np.arange(BATCH * HEADS))]
    results = {
        "torch": attention(everybody, request),
        "triton": run(node, inputs, tile),
    }
    tolerance = TOLERANCE[torch.float32]
    for out, lse in results.values():
        torch.testing.assert_close(out.double(), wanted, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(lse.double(), wanted_lse, atol=tolerance, rtol=tolerance)


def test_the_oracle_is_the_first_rung() -> None:
    """A mask by hand, so that the ladder stands on something."""
    from spattn.frontend.parser import parse

    wanted = [[True, False, False], [True, True, False], [False, True, True]]
    np.testing.assert_array_equal(oracle.mask(parse("last(2)"), 3, 3), wanted)
