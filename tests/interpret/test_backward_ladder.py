"""Drawn patterns: the gradients of the Triton backend are those of the formulas."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spattn.frontend.syntax import Node
from tests.kernels import TILES, check_gradients, drawn
from tests.strategies import patterns, q_offsets, tensors_for

pytestmark = pytest.mark.interpret

EXAMPLES = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else 8
BATCH, HEADS = 1, 2


@settings(max_examples=EXAMPLES)
@given(st.data(), patterns(depth=2), st.integers(0, 34), st.integers(0, 34), q_offsets(36))
def test_drawn_patterns(data: st.DataObject, node: Node, q_len: int, kv_len: int, q_offset: int | None) -> None:
    tensors = data.draw(tensors_for(node, q_len, kv_len, BATCH, HEADS))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float16]))
    options = {"tensors": tensors, "q_offset": q_offset, "dtype": dtype}
    tile = data.draw(st.sampled_from(TILES))
    check_gradients(node, drawn(q_len, kv_len, batch=BATCH, heads=(HEADS, 1), **options), tile)
