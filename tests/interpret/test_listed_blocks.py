"""Lists of blocks that a call gives: forward and backward beside the oracle, and numbers that are no blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spattn
from spattn.codegen.parameters import BlockLists
from spattn.gpu.frame import Frame
from spattn.gpu.inputs import RoleInputs
from tests.kernels import PEELED, check, check_gradients, drawn, mask_of, requested, run
from tests.strategies import lists_of

pytestmark = pytest.mark.interpret

CASES = (
    ("listed_blocks(x, 8)", (1, 2, 1, 6), torch.float16),
    ("listed_blocks(x, 32) & causal", (3, 6), torch.float32),
    ("listed_blocks(x, 8) | last(3)", (1, 2, 3, 6), torch.float32),
    ("causal - listed_blocks(x, 8)", (1, 4, 1, 6), torch.float16),
)


def lists(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.as_tensor(lists_of(np.random.default_rng(seed).random(shape) < 0.4))


@pytest.mark.parametrize(("pattern", "shape", "dtype"), CASES)
def test_lists_for_all_rows_for_each_block_and_for_heads(
    pattern: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    check(pattern, drawn(27, 41, heads=(4, 2), tensors={"x": lists(shape)}, dtype=dtype), PEELED)
    check(pattern, drawn(9, 19, heads=(4, 2), tensors={"x": lists(shape)}, q_offset=-5))


@pytest.mark.parametrize(("pattern", "shape", "dtype"), CASES[:3])
def test_gradients(pattern: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_gradients(pattern, drawn(17, 25, heads=(4, 2), tensors={"x": lists(shape)}, dtype=dtype))


def test_both_backends_agree_in_a_call_with_gradients() -> None:
    given = drawn(17, 24, batch=2, heads=(4, 2), tensors={"x": lists((2, 2, 1, 3))})
    found = {}
    for backend in ("torch", "triton"):
        q, k, v = (x.clone().requires_grad_() for x in (given.q, given.k, given.v))
        attn = spattn.compile("listed_blocks(x, 8) & causal", backend=backend)
        out = attn(q, k, v, **given.tensors)
        out.square().sum().backward()
        found[backend] = (out, q.grad, k.grad, v.grad)
    for one, other in zip(found["torch"], found["triton"], strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


def test_lists_are_handed_over_as_they_are() -> None:
    given = drawn(33, 41, heads=(4, 2), tensors={"x": lists((1, 2, 5, 6))})
    plan, request = requested("listed_blocks(x, 8)", given)
    (role,) = plan.module_of(()).passes[0].roles
    assert isinstance(role, BlockLists)
    (found,) = RoleInputs([role], Frame.of(request)).tensors(request.tensors)
    assert found.data_ptr() == given.tensors["x"].data_ptr()


def test_numbers_that_are_no_blocks_read_nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spattn.runtime.arguments._are_lists", lambda lists: True)
    wrong = torch.tensor([[9, -1, 2, 1 << 30, -(1 << 31), (1 << 31) - 1, 40]], dtype=torch.int32)
    given = drawn(24, 41, tensors={"x": wrong})
    for tile in (None, PEELED):
        out, _ = run("listed_blocks(x, 8)", given, tile)
        assert out.isfinite().all()
    assert mask_of("listed_blocks(x, 8)", given)[0, 0, 0].nonzero().flatten().tolist() == list(range(16, 24))
