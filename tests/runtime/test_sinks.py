"""Sinks: one more logit in each row, by every road that a call takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import spattn
from spattn import oracle
from spattn.frontend.syntax import Node
from tests import strategies
from tests.runtime.calls import drawn

LENGTH, HEADS = 24, 4
INF = float("inf")
BACKENDS = [pytest.param("torch", 40), pytest.param("triton", 4, marks=pytest.mark.interpret)]
SINKS = torch.tensor([0.3, -1.0, 2.0, -INF])
ATTN = spattn.compile("last(6)")


@pytest.mark.parametrize(("backend", "examples"), BACKENDS)
def test_drawn_patterns(backend: str, examples: int) -> None:
    @settings(max_examples=examples)
    @given(strategies.patterns(depth=2), st.data())
    def check(node: Node, data: st.DataObject) -> None:
        tensors = data.draw(strategies.tensors_for(node, LENGTH, LENGTH, 1, HEADS))
        mask = torch.as_tensor(oracle.mask(node, LENGTH, LENGTH, num_heads=HEADS, tensors=tensors))
        torch.manual_seed(0)
        leaves = [torch.randn(1, h, LENGTH, 16).requires_grad_() for h in (HEADS, 2, 2)]
        leaves.append(torch.randn(HEADS).requires_grad_())
        attn = spattn.compile(str(node), backend=backend)
        names = {name: torch.as_tensor(x) for name, x in tensors.items()}
        mine = attn(*leaves[:3], sinks=leaves[3], return_lse=True, **names)
        theirs = oracle.attention(*leaves[:3], mask, sinks=leaves[3])
        for one, other in zip((*mine, *gradients(mine, leaves)), (*theirs, *gradients(theirs, leaves)), strict=True):
            torch.testing.assert_close(one.double(), other.double(), atol=1e-4, rtol=1e-4)

    check()


def gradients(found: tuple[Tensor, Tensor], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(found[0].sin().sum() + found[1].cos().sum(), leaves)


def test_a_row_without_keys_has_its_sink() -> None:
    q, k, v = (x.requires_grad_() for x in drawn())
    sinks = SINKS.clone().requires_grad_()
    out, lse = spattn.attention(q, k, v, "none", sinks=sinks, return_lse=True)
    assert (out == 0).all()
    assert torch.equal(lse, SINKS[:, None].expand_as(lse))
    *others, found = torch.autograd.grad(out.sum() + lse[:, :3].sum(), (q, k, v, sinks))
    assert all((x == 0).all() for x in others)
    assert found.tolist() == [34, 34, 34, 0]


def test_padded_rows_are_of_no_request() -> None:
    """Whose lse is -inf, sink or not; a row of a request that has no keys has its sink."""
    q, k = torch.randn(2, 2, 4, 8), torch.randn(2, 2, 4, 8)
    sinks, lens = torch.tensor([0.5, 2.0]), torch.tensor([4, 1])
    attn = spattn.compile("last(2) & where(q > 0)", backend="torch")
    _, lse = attn(q, k, k, sinks=sinks, q_lens=lens, kv_lens=torch.tensor([4, 1]), return_lse=True)
    assert torch.equal(lse[0, :, 0], sinks)
    assert torch.equal(lse[1, :, 0], sinks)
    assert lse[1, :, 1:].isneginf().all()
    packed = [x[0].transpose(0, 1) for x in (q, k, k)]
    cu = torch.tensor([0, 3])
    _, lse = attn(*packed, sinks=sinks, cu_seqlens_q=cu, cu_seqlens_k=cu, return_lse=True)
    assert torch.equal(lse[:, 0], sinks)
    assert lse[:, 3].isneginf().all()


def test_a_sink_of_minus_infinity_is_none() -> None:
    sinks = torch.full((4,), -INF).requires_grad_()
    inputs = [x.requires_grad_() for x in drawn()]
    found, plain = ATTN(*inputs, sinks=sinks, return_lse=True), ATTN(*inputs, return_lse=True)
    torch.testing.assert_close(found, plain)
    mine = gradients(found, [*inputs, sinks])
    torch.testing.assert_close(mine[:3], gradients(plain, inputs))
    assert (mine[3] == 0).all()


def test_gradcheck() -> None:
    torch.manual_seed(0)
    given = [torch.randn(1, h, 5, 4, dtype=torch.float64).requires_grad_() for h in (2, 1, 1)]
    given.append(torch.randn(2, dtype=torch.float64).requires_grad_())
    attn = spattn.compile("local(1) & rows([1:])", backend="torch")

    def call(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> Any:
        return attn(q, k, v, sinks=sinks, return_lse=True)

    assert torch.autograd.gradcheck(call, given)
    assert torch.autograd.gradgradcheck(call, given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
def test_half_precision_is_as_near_as_dense_attention(dtype: torch.dtype, kept: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in drawn(64, 64))
    sinks = torch.tensor([0.3, -1.0, 2.0, 5.0], dtype=kept)
    mask = torch.as_tensor(oracle.mask(ATTN.pattern.syntax, 64, 64))
    exact, exact_lse = oracle.attention(q, k, v, mask, sinks=sinks)
    logits = (q @ k.repeat_interleave(2, 1).mT / 4).masked_fill(~mask, -INF)
    column = sinks.to(dtype)[:, None, None].expand(2, -1, 64, 1)
    dense = torch.cat((logits, column), -1).softmax(-1)[..., :-1] @ v.repeat_interleave(2, 1)
    out, lse = ATTN(q, k, v, sinks=sinks, return_lse=True)
    assert out.dtype == dtype
    assert lse.dtype == torch.float32
    assert (out - exact).abs().max() <= 2 * (dense - exact).abs().max()
    torch.testing.assert_close(lse, exact_lse.float(), atol=1e-3, rtol=1e-3)


def test_packed_rows() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(11, 4, 16) for _ in range(3))
    lengths = {name: torch.tensor([0, 4, 11]) for name in ("cu_seqlens_q", "cu_seqlens_k")}
    out, lse = ATTN(q, k, v, sinks=SINKS, return_lse=True, **lengths)
    each = [
        ATTN(*(x[a:b].transpose(0, 1)[None] for x in (q, k, v)), sinks=SINKS, return_lse=True)
        for a, b in ((0, 4), (4, 11))
    ]
    torch.testing.assert_close(out, torch.cat([one[0].transpose(0, 1) for one, _ in each]))
    torch.testing.assert_close(lse, torch.cat([one[0] for _, one in each], -1))


def loss(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> Tensor:
    out, lse = ATTN(q, k, v, sinks=sinks, return_lse=True)
    return out.square().sum() + lse.sin().sum()


def test_transforms_and_compilation() -> None:
    given = (*drawn(), torch.tensor([0.3, -1.0, 2.0, 0.0]))
    every = (0, 1, 2, 3)
    leaves = [x.requires_grad_() for x in given]
    wanted = torch.autograd.grad(loss(*leaves), leaves)
    inputs = [x.detach() for x in given]
    torch.testing.assert_close(torch.func.grad(loss, argnums=every)(*inputs), wanted)
    stacked = [torch.stack([x, 2 * x]) for x in inputs]
    mapped = torch.func.vmap(torch.func.grad(loss, argnums=every))(*stacked)
    torch.testing.assert_close([x[0] for x in mapped], list(wanted), atol=1e-5, rtol=1e-5)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(*leaves), leaves), wanted, atol=1e-5, rtol=1e-5)


def test_autocast() -> None:
    q, k, v = drawn()
    with torch.autocast("cpu", torch.bfloat16):
        out, lse = ATTN(q, k, v, sinks=SINKS, return_lse=True)
    wanted, wanted_lse = ATTN(*(x.bfloat16() for x in (q, k, v)), sinks=SINKS, return_lse=True)
    assert torch.equal(out, wanted)
    assert torch.equal(lse, wanted_lse)


def test_a_module_learns_them() -> None:
    module = spattn.nn.SparseAttention("last(6)", sinks=4)
    assert dict(module.named_parameters()).keys() == {"sinks"} == module.state_dict().keys()
    assert repr(module) == "SparseAttention('last(6)', sinks=4)"
    module(*drawn()).square().sum().backward()
    assert module.sinks is not None
    assert module.sinks.grad is not None
    assert (module.sinks.grad != 0).all()
    torch.testing.assert_close(module(*drawn(), sinks=SINKS), ATTN(*drawn(), sinks=SINKS))


@pytest.mark.parametrize("sinks", [True, 0, -4])
def test_a_module_wants_a_number_of_heads(sinks: int) -> None:
    with pytest.raises(spattn.ArgumentError, match=f"E060: sinks={sinks} is no number of heads"):
        spattn.nn.SparseAttention("last(6)", sinks=sinks)


WRONG = {
    "shape": torch.zeros(2),
    "int64": torch.zeros(4, dtype=torch.int64),
    "meta": torch.zeros(4, device="meta"),
    "not a tensor": [0.0] * 4,
}


@pytest.mark.parametrize("what", WRONG)
def test_sinks_that_do_not_fit_are_refused(what: str) -> None:
    with pytest.raises(spattn.ArgumentError, match=f"E060: sinks .*{what}"):
        ATTN(*drawn(), sinks=WRONG[what])
