"""The torch backend against the oracle in float64: values, lse, gradients, and inputs that must not matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spattn import oracle
from spattn.backends.torch import attention
from spattn.backends.torch.schedule import batches
from spattn.backends.torch.tiles import add_in_order
from spattn.call.positions import Positions
from spattn.call.prepared import Prepared
from spattn.call.request import Request
from spattn.expressions.tensors import Tensors
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Node
from spattn.layout.call import calls
from spattn.layout.planner import plan
from tests.layout.patterns import PICKED, tensors

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def given_tensors(node: Node, kv_len: int, batch: int) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in tensors(node, kv_len, batch).items()}


def inputs(
    q_len: int,
    kv_len: int,
    batch: int = 1,
    heads: tuple[int, int] = (2, 2),
    dims: tuple[int, int] = (8, 8),
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(q_len * 1000 + kv_len)
    q = torch.randn(batch, heads[0], q_len, dims[0], **options)
    k = torch.randn(batch, heads[1], kv_len, dims[0], **options)
    return q, k, torch.randn(batch, heads[1], kv_len, dims[1], **options)


def run(node: Node, q: Tensor, k: Tensor, v: Tensor, given: dict[str, Tensor], **options: Any) -> tuple[Tensor, Tensor]:
    at = Positions.usual(q.shape[2], k.shape[2], options.get("q_offset"))
    request = Request(q, k, v, options.get("scale", q.shape[-1] ** -0.5), at, Prepared(given))
    everybody = np.arange(q.shape[0] * q.shape[1])
    return attention([(plan(meaning(node)), everybody)], request)


def mask_of(node: Node, q: Tensor, k: Tensor, given: dict[str, Tensor], **options: Any) -> Any:
    sizes = {"batch_size": q.shape[0], "num_heads": q.shape[1]}
    return oracle.mask(node, q.shape[2], k.shape[2], tensors=given, **sizes, **options)


def check(node: Node, q: Tensor, k: Tensor, v: Tensor, batch: int = 1, **options: Any) -> None:
    given = given_tensors(node, k.shape[2], batch)
    out, lse = run(node, q, k, v, given, **options)
    scale = options.pop("scale", None)
    expected, expected_lse = oracle.attention(q, k, v, mask_of(node, q, k, given, **options), scale)
    tolerance = TOLERANCE[q.dtype]
    assert out.dtype == q.dtype
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance, equal_nan=True)
    assert lse.dtype == (torch.float64 if q.dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(lse.double(), expected_lse, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PICKED)
def test_picked_patterns(name: str) -> None:
    node = parse(PICKED[name])
    for q_len, kv_len, batch in ((64, 64, 2), (70, 150, 1), (150, 70, 1), (1, 50, 2), (130, 130, 1)):
        check(node, *inputs(q_len, kv_len, batch), batch)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (6, 1)])
@pytest.mark.parametrize("text", ["local(9) | columns([::16])", "strided(8) | last(5)", "random(2, block=8) & causal"])
def test_dtypes_and_groups(text: str, heads: tuple[int, int], dtype: torch.dtype) -> None:
    check(parse(text), *inputs(75, 90, 2, heads, (16, 24), dtype=dtype), 2)


@pytest.mark.parametrize("lengths", [(0, 0), (0, 5), (5, 0), (1, 1), (64, 64), (65, 63)])
@pytest.mark.parametrize("text", ["causal", "global([0, -1]) | local(2)", "random(1, block=8)", "documents(ids)"])
def test_lengths(text: str, lengths: tuple[int, int]) -> None:
    check(parse(text), *inputs(*lengths))


def test_a_batch_without_entries() -> None:
    for text in ("causal", "valid(lengths)", "random(1)"):
        q, k, v = inputs(5, 5, batch=0)
        out, lse = run(parse(text), q, k, v, given_tensors(parse(text), 5, 1))
        assert out.shape == (0, 2, 5, 8)
        assert lse.shape == (0, 2, 5)


def test_offset_and_scale() -> None:
    check(parse("chunk(10) & causal"), *inputs(40, 60), q_offset=7, scale=0.5)


def test_strides_are_free() -> None:
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2)[..., ::2] for x in inputs(40, 60, 2, dims=(16, 16)))
    check(parse("local(5) | columns([::16])"), q, k, v, 2)


@pytest.mark.parametrize("heads", [(1, 1), (2, 1), (4, 2)])
@pytest.mark.parametrize("text", ["last(70)", "local(40)", "full", "causal"])
def test_adjacent_keys_of_any_strides(text: str, heads: tuple[int, int]) -> None:
    """Such keys are views of k and v, whose strides are the caller's."""
    for q_len, kv_len in ((400, 400), (1, 90)):
        q, k, v = inputs(q_len, kv_len, 2, heads, dtype=torch.float64)
        for change in (lambda x: x.transpose(1, 2).contiguous().transpose(1, 2), lambda x: x[:, :, :1].expand_as(x)):
            check(parse(text), change(q), change(k), change(v), 2)
            check_gradients(text, q, change(k), change(v))


def test_a_band_has_one_mask_and_no_gathered_keys() -> None:
    layout, cpu = plan(meaning(parse("last(70)"))), torch.device("cpu")
    (call,) = calls(layout, 1000, 1000, Tensors({}, 1000))
    widest = max(batches(layout, call, cpu, 1 << 20), key=lambda batch: len(batch.rows))
    assert len(widest.rows) > 8
    assert widest.span == (128 - 69, 64)
    assert {len(mask) for _, mask in widest.masks} == {1}


def test_long_programs_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    from spattn.backends.torch import runs

    whole = runs.batches
    monkeypatch.setattr(runs, "batches", lambda layout, call, device, pairs: whole(layout, call, device, 2048))
    for text in ("causal", "global([0, 3]) | last(5)", "strided(4) | last(9)", "blocks(table, size=32)"):
        check(parse(text), *inputs(200, 300))
        check_gradients(text, *inputs(100, 120, dtype=torch.float64))


def check_gradients(text: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Gradients of out and lse against those of the oracle."""
    node = parse(text)
    given = given_tensors(node, k.shape[2], q.shape[0])
    mask = mask_of(node, q, k, given)
    results = []
    for f in (lambda *x: run(node, *x, given), lambda *x: oracle.attention(*x, mask)):
        leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
        out, lse = f(*leaves)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
        keyed = torch.where(torch.as_tensor(mask).any(-1), lse, 0)
        loss = (out * weights).sum() + (keyed * weights[..., 0]).sum()
        results.append(torch.autograd.grad(loss, leaves))
    for mine, expected in zip(*results, strict=True):
        expected = expected.nan_to_num()  # the oracle's rows without keys
        torch.testing.assert_close(mine, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", PICKED)
def test_gradients(name: str) -> None:
    check_gradients(PICKED[name], *inputs(40, 56, 2, (4, 2), (8, 6), dtype=torch.float64))


@pytest.mark.parametrize("text", ["local(2) | columns([::4])", "rows([2]) | last(3)", "strided(3) | last(2)"])
def test_gradcheck(text: str) -> None:
    node = parse(text)
    leaves = [x.requires_grad_() for x in inputs(5, 6, 1, (2, 1), (3, 2), dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda q, k, v: run(node, q, k, v, {}), leaves)


def test_rows_without_keys() -> None:
    node = parse("columns([4:8]) & causal")
    q, k, v = (x.requires_grad_() for x in inputs(20, 20))
    out, lse = run(node, q, k, v, {})
    assert (out[:, :, :4] == 0).all()
    assert (lse[:, :, :4] == -torch.inf).all()
    out.sum().backward()
    assert q.grad is not None
    assert (q.grad[:, :, :4] == 0).all()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))


POISON = [float("nan"), float("inf"), -float("inf"), 3e38]  # the last one overflows


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("side", ["k", "v", "both"])
@pytest.mark.parametrize("text", ["last(5) - columns([3, 20, 33])", "chunk(10) | rows([7])", "random(1, block=8)"])
def test_keys_that_are_not_allowed_never_matter(text: str, side: str, poison: float) -> None:
    """Rows that may not see a poisoned key are as if it were clean, though rows of the same tile see it."""
    node = parse(text)
    q, k, v = inputs(48, 48)
    spoilt = torch.tensor([3, 20, 33])
    bad_k = k if side == "v" else k.index_fill(2, spoilt, poison)
    bad_v = v if side == "k" else v.index_fill(2, spoilt, poison)
    mask = torch.as_tensor(mask_of(node, q, k, {})).expand(1, 2, 48, 48)
    safe = ~mask[..., spoilt].any(-1)
    clean, poisoned = (_on_safe_rows(node, x, safe) for x in ((q, k, v), (q, bad_k, bad_v)))
    keys = ~(mask & ~safe.unsqueeze(-1)).any(2)  # that no unsafe row sees
    for expected, found, where in zip(clean, poisoned, (safe, safe, safe, keys, keys), strict=True):
        torch.testing.assert_close(found[where], expected[where], atol=1e-5, rtol=1e-5)
    if poison == 3e38:  # float64 does not overflow
        return
    expected, _ = oracle.attention(q, bad_k, bad_v, mask)
    torch.testing.assert_close(poisoned[0].double(), expected, atol=1e-5, rtol=1e-5, equal_nan=True)


def _on_safe_rows(node: Node, x: tuple[Tensor, ...], safe: Tensor) -> list[Tensor]:
    """out, lse and the gradients of the safe rows' outputs."""
    leaves = [t.detach().requires_grad_() for t in x]
    out, lse = run(node, *leaves, {})
    loss = torch.where(safe.unsqueeze(-1), out, 0).square().sum()
    return [out.detach(), lse.detach(), *torch.autograd.grad(loss, leaves)]


def test_the_same_bits_again() -> None:
    node = parse("strided(8) | last(5)")
    first, second = (run(node, *inputs(100, 100), {})[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("shape", [(2, 3, 7, 4), (7, 4)])
def test_rows_are_added_in_order_as_they_are_at_once(shape: tuple[int, ...]) -> None:
    index = torch.tensor([5, 0, 5, 2, 2, 5])
    values = torch.randn(*shape[:-2], len(index), shape[-1], dtype=torch.float64)
    into = torch.randn(shape, dtype=torch.float64)
    wanted = into.index_add(len(shape) - 2, index, values)
    add_in_order(into, index, values)
    torch.testing.assert_close(into, wanted)
