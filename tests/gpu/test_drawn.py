"""A sample of the language on a GPU: whatever is compacted, results stay within FlashAttention's rule."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import Phase, given, note, seed, settings
from hypothesis import strategies as st

from spattn.frontend.syntax import Node
from tests.gpu.test_accuracy import check
from tests.gpu.test_gradients import check as check_gradients
from tests.kernels import Inputs, drawn
from tests.strategies import patterns, tensors_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(540),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

SHARES = 15  # that processes may take side by side
EXAMPLES = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else 2
BATCH, HEADS = 2, 2
LENGTHS = st.integers(1, 400)
# a shrunk example costs a compilation a step: the first that fails is told as it is
SAMPLE = {"phases": (Phase.generate,), "database": None, "print_blob": False}


def inputs(data: st.DataObject, node: Node, q_len: int, kv_len: int) -> Inputs:
    """Random inputs for a pattern, in half precision."""
    note(f"{node}, {q_len} x {kv_len}")
    dtype, head_dim = data.draw(st.sampled_from([torch.bfloat16, torch.float16])), data.draw(st.sampled_from([64, 128]))
    tensors = data.draw(tensors_for(node, q_len, kv_len, BATCH, HEADS))
    sizes = {"batch": BATCH, "heads": (HEADS, 1), "dims": (head_dim, head_dim)}
    return drawn(q_len, kv_len, **sizes, dtype=dtype, device="cuda", tensors=tensors)


@pytest.mark.parametrize("share", range(SHARES))
def test_results(share: int) -> None:
    @seed(share)
    @settings(max_examples=EXAMPLES, **SAMPLE)
    @given(st.data(), patterns(depth=2), LENGTHS, LENGTHS)
    def sample(data: st.DataObject, node: Node, q_len: int, kv_len: int) -> None:
        check(node, inputs(data, node, q_len, kv_len))

    sample()


@pytest.mark.parametrize("share", range(SHARES))
def test_gradients(share: int) -> None:
    @seed(share)
    @settings(max_examples=max(EXAMPLES // 4, 1), **SAMPLE)
    @given(st.data(), patterns(depth=1), LENGTHS, LENGTHS)
    def sample(data: st.DataObject, node: Node, q_len: int, kv_len: int) -> None:
        check_gradients(node, inputs(data, node, q_len, kv_len))

    sample()
