"""Results over disjoint keys, merged, are the result over all of them: values and gradients."""

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

LENGTH, HEADS = 24, 2
INF = float("inf")


def leaf(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype).requires_grad_()


def some_parts(count: int = 3, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(count)
    wide = torch.promote_types(dtype, torch.float32)
    return [(leaf(2, 3, 7, 4, dtype=dtype), leaf(2, 3, 7, dtype=wide)) for _ in range(count)]


@settings(max_examples=40)
@given(strategies.patterns(depth=2), st.data())
def test_parts_of_a_pattern_are_the_pattern(node: Node, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, LENGTH - 1), max_size=3)))
    drawn = data.draw(strategies.tensors_for(node, LENGTH, LENGTH, 1, HEADS))
    tensors = {name: torch.as_tensor(x) for name, x in drawn.items()}
    torch.manual_seed(0)
    leaves = [leaf(1, HEADS, LENGTH, 8) for _ in range(3)]
    sides = zip([0, *cuts], [*cuts, LENGTH], strict=True)
    calls = [spattn.compile(f"({node}) & columns([{first}:{stop}])", backend="torch") for first, stop in sides]
    merged = spattn.merge(attn(*leaves, return_lse=True, **tensors) for attn in calls)
    mask = oracle.mask(node, LENGTH, LENGTH, num_heads=HEADS, tensors=drawn)
    whole = oracle.attention(*leaves, torch.as_tensor(mask))
    torch.testing.assert_close(merged, whole, atol=1e-10, rtol=1e-10)
    some = ~whole[1].isneginf()
    mine, theirs = (torch.autograd.grad(out.sin().sum() + lse[some].sum(), leaves) for out, lse in (merged, whole))
    for one, other in zip(mine, theirs, strict=True):
        # softmax over a row without keys has no derivative in the oracle
        torch.testing.assert_close(one, other.nan_to_num(), atol=1e-8, rtol=1e-8)


def test_derivatives_of_both_orders() -> None:
    given = [x for part in some_parts() for x in part]

    def call(*x: Tensor) -> tuple[Tensor, Tensor]:
        return spattn.merge(list(zip(x[::2], x[1::2], strict=True)))

    assert torch.autograd.gradcheck(call, given)
    assert torch.autograd.gradgradcheck(call, given)


def test_a_part_without_keys_counts_nothing() -> None:
    (out, lse), (other, _) = some_parts(2)
    none = torch.full_like(lse, -INF).requires_grad_()
    odd = torch.full_like(other, float("nan")).requires_grad_()
    merged = spattn.merge([(out, lse), (odd, none)])
    torch.testing.assert_close(merged, (out, lse))
    gradients = torch.autograd.grad(merged[0].sum() + merged[1].sum(), (odd, none))
    assert all((x == 0).all() for x in gradients)


def test_a_row_without_keys_is_zero() -> None:
    parts = some_parts(2)
    empty = [(out, torch.full_like(lse, -INF).requires_grad_()) for out, lse in parts]
    out, lse = spattn.merge(empty)
    assert (out == 0).all()
    assert (lse == -INF).all()
    gradients = torch.autograd.grad(out.sum() + lse.sum(), [x for part in empty for x in part])
    assert all((x == 0).all() for x in gradients)


@pytest.mark.parametrize("odd", [INF, float("nan")])
def test_what_is_not_finite_is_told(odd: float) -> None:
    (out, lse), part = some_parts(2)
    out, lse = spattn.merge([(out, lse.detach().index_fill(-1, torch.tensor([2]), odd)), part])
    assert out[..., 2, :].isnan().all()
    assert not lse[..., 2].isfinite().any()
    assert out[..., 3:, :].isfinite().all()
    assert lse[..., 3:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_sums_are_wide_and_rounded_once(dtype: torch.dtype) -> None:
    parts = some_parts(4, dtype)
    out, lse = spattn.merge(parts)
    exact, exact_lse = spattn.merge([(a.double(), b.double()) for a, b in parts])
    assert out.dtype == dtype
    assert lse.dtype == torch.float32
    torch.testing.assert_close(out, exact.to(dtype), atol=1e-6, rtol=torch.finfo(dtype).eps)
    torch.testing.assert_close(lse, exact_lse.float())


def test_packed_rows() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(11, HEADS, 16) for _ in range(3))
    lengths = {name: torch.tensor([0, 4, 11]) for name in ("cu_seqlens_q", "cu_seqlens_k")}
    near, far, whole = (
        spattn.attention(q, k, v, pattern, return_lse=True, **lengths)
        for pattern in ("last(2)", "causal - last(2)", "causal")
    )
    torch.testing.assert_close(spattn.merge([near, far], packed=True), whole)
    with pytest.raises(spattn.ArgumentError, match="packed=True"):
        spattn.merge([near, far])


def test_compiled_mapped_and_under_autocast() -> None:
    parts = some_parts(2, torch.float32)
    wanted = spattn.merge(parts)
    compiled = torch.compile(lambda x: spattn.merge(x), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(parts), wanted)
    torch.testing.assert_close(torch.func.vmap(lambda *x: spattn.merge([x[:2], x[2:]]))(*parts[0], *parts[1]), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(spattn.merge(parts), wanted)


OUT, LSE = torch.zeros(3, 5, 4), torch.zeros(3, 5)
WRONG: dict[str, Any] = {
    "nothing to merge": [],
    "part 0 is no pair": [OUT],
    "part 1 is no pair": [(OUT, LSE), (OUT, None)],
    "part 0 has out": [(OUT, LSE[:2])],
    "out of part 1 has shape": [(OUT, LSE), (OUT[:2], LSE[:2])],
    "out of part 1 is torch.float16": [(OUT, LSE), (OUT.half(), LSE)],
    "out of part 0 is torch.int64": [(OUT.long(), LSE)],
    "lse of part 0 is torch.float16": [(OUT, LSE.half())],
    "lse of part 0 is on meta": [(OUT, LSE.to("meta"))],
    "out of part 1 is on meta": [(OUT, LSE), (OUT.to("meta"), LSE.to("meta"))],
}


@pytest.mark.parametrize("message", WRONG)
def test_parts_that_do_not_fit_are_refused(message: str) -> None:
    with pytest.raises(spattn.ArgumentError, match=f"E060: .*{message}"):
        spattn.merge(WRONG[message])
