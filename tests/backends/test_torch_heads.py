"""Heads and batch entries of different patterns, in the torch backend: each is right, and none computed for another."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import spattn
from spattn import oracle
from spattn.backends.torch import backward, forward
from spattn.backends.torch.parts import parts
from spattn.frontend.parser import parse
from spattn.frontend.syntax import Node
from tests.strategies import patterns, tensors_for

BATCH, HEADS, KV_HEADS, LENGTH = 3, 8, 2, 70
PATTERNS = {
    "some heads": "heads([1, 2, 5]) & local(9) | ~heads([1, 2, 5]) & strided(8) & causal",
    "heads without keys": "heads([1, 2, 5]) & last(20)",
    "one entry": "batch([1]) & causal | local(2)",
    "entries and heads": "batch([0, 2]) & heads([1, 2, 5]) & last(9) | global([0, -1]) | heads([3]) & causal",
    "no product": "where((b + h) % 3 == 1) & local(5) | heads([::2]) & columns([::7])",
    "heads that also differ": "heads([1, 2, 5]) & random(2, block=8) | last(3)",
    "tensors by entry": "heads([0, 3]) & documents(ids) & causal | batch([1]) & last(4)",
    "tensors by head": "heads([0, 5]) & blocks(table, size=16) | heads([1:4]) & last(4)",
}
TENSORS = {
    "ids": torch.arange(LENGTH).div(torch.tensor([[9], [30], [100]]), rounding_mode="floor"),
    "table": torch.rand(BATCH, HEADS, 5, 5, generator=torch.Generator().manual_seed(1)) < 0.5,
}


def inputs(length: int = LENGTH, batch: int = BATCH, heads: int = HEADS, kv_heads: int = KV_HEADS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((heads, 6), (kv_heads, 6), (kv_heads, 4))
    return [torch.randn(batch, h, length, d, dtype=torch.float64, generator=generator) for h, d in shapes]


def of_pattern(text: str) -> tuple[Callable[..., Any], dict[str, Tensor]]:
    tensors = {name: x for name, x in TENSORS.items() if name in text}
    attn = spattn.compile(text, backend="torch")
    return lambda q, k, v: attn(q, k, v, return_lse=True, **tensors), tensors


def results(f: Callable[..., Any], leaves: list[Tensor], mask: Tensor) -> list[Tensor]:
    """out, lse and the gradients of both."""
    leaves = [x.clone().requires_grad_() for x in leaves]
    out, lse = f(*leaves)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    loss = (out * weights).sum() + (torch.where(mask.any(-1), lse, 0) * weights[..., 0]).sum()
    gradients = torch.autograd.grad(loss, leaves)
    return [out.detach(), lse.detach(), *(x.nan_to_num() for x in gradients)]  # of the oracle's rows without keys


@pytest.mark.parametrize("kv_heads", [8, 2, 1])
@pytest.mark.parametrize("name", PATTERNS)
def test_each_group_is_the_oracle(name: str, kv_heads: int) -> None:
    f, tensors = of_pattern(PATTERNS[name])
    arrays = {name: x.numpy() for name, x in tensors.items()}
    sizes = {"batch_size": BATCH, "num_heads": HEADS}
    mask = torch.as_tensor(oracle.mask(parse(PATTERNS[name]), LENGTH, LENGTH, tensors=arrays, **sizes))
    leaves = inputs(kv_heads=kv_heads)
    found, expected = (results(g, leaves, mask) for g in (f, lambda *x: oracle.attention(*x, mask)))
    for mine, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-9, rtol=1e-9)


@settings(max_examples=300 if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else 25)
@given(st.data(), patterns(depth=2), st.integers(0, 90), st.integers(0, 90))
def test_drawn_patterns_are_the_oracle(data: st.DataObject, node: Node, q_len: int, kv_len: int) -> None:
    sizes = {"batch_size": 2, "num_heads": 4}
    arrays = data.draw(tensors_for(node, q_len, kv_len, 2, 4))
    mask = torch.as_tensor(oracle.mask(node, q_len, kv_len, tensors=arrays, **sizes)).expand(2, 4, q_len, kv_len)
    tensors = {name: torch.as_tensor(x) for name, x in arrays.items()}
    attn = spattn.compile(str(node), backend="torch")
    q, k, v = inputs(max(q_len, kv_len), 2, 4)
    leaves = [q[:, :, :q_len], k[:, :, :kv_len], v[:, :, :kv_len]]
    f, g = lambda *x: attn(*x, return_lse=True, **tensors), lambda *x: oracle.attention(*x, mask)
    for mine, wanted in zip(results(f, leaves, mask), results(g, leaves, mask), strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-9, rtol=1e-9)


def test_gradcheck() -> None:
    attn = spattn.compile("heads([1, 2]) & last(3) | batch([1]) & heads([0]) & strided(3)", backend="torch")
    leaves = [x.requires_grad_() for x in inputs(length=6, batch=2, heads=4, kv_heads=2)]
    assert torch.autograd.gradcheck(lambda *x: attn(*x, return_lse=True)[0], leaves, fast_mode=True)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, int]]:
    """Counts the scores that a pattern computes, forward and backward."""
    counts = {forward: 0, backward: 0}

    def counting(module: Any) -> None:
        scores = module.scores

        def counted(q: Tensor, k: Tensor) -> Tensor:
            s: Tensor = scores(q, k)
            counts[module] += s.numel()
            return s

        monkeypatch.setattr(module, "scores", counted)

    for module in counts:
        counting(module)

    def of(text: str, *leaves: Tensor) -> tuple[int, int]:
        counts.update(dict.fromkeys(counts, 0))
        spattn.compile(text, backend="torch")(*(x.clone().requires_grad_() for x in leaves)).sum().backward()
        return counts[forward], counts[backward]

    return of


@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize(("dense", "count"), [("[0]", 1), ("[1, 2, 5]", 3), ("[0:4]", 4), ("[::2]", 4), ("[0:8]", 8)])
def test_a_head_costs_what_its_own_pattern_costs(
    dense: str, count: int, kv_heads: int, work: Callable[..., tuple[int, int]]
) -> None:
    q, k, v = inputs(length=300, kv_heads=kv_heads)
    of_causal, of_last = (work(pattern, q[:, :1], k[:, :1], v[:, :1])[0] for pattern in ("causal", "last(5)"))
    assert of_causal > 2 * of_last
    expected = count * of_causal + (HEADS - count) * of_last
    assert work(f"heads({dense}) & causal | ~heads({dense}) & last(5)", q, k, v) == (expected, expected)


def test_a_batch_entry_costs_what_its_own_pattern_costs(work: Callable[..., tuple[int, int]]) -> None:
    q, k, v = inputs(length=300)
    one = work("causal", q[:1], k[:1], v[:1])[0]
    assert work("batch([1]) & causal", q, k, v) == (one, one)
    assert work("batch([0, 2]) & causal", q, k, v) == (2 * one, 2 * one)
    assert work("batch([1]) & heads([3]) & causal", q, k, v)[0] == one // HEADS


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.data())
def test_parts_are_the_heads_and_views(batch: int, kv_heads: int, members: int, data: st.DataObject) -> None:
    heads = kv_heads * members
    everybody = [(b, h) for b in range(batch) for h in range(heads)]
    pairs = sorted(data.draw(st.sets(st.sampled_from(everybody))))
    q, k = torch.arange(batch * heads).view(batch, heads, 1), torch.arange(batch * kv_heads).view(batch, kv_heads, 1)
    found = []
    for part in parts(pairs, members):
        rows, keys = part.of_rows(q, kv_heads), part.of_keys(k)
        assert rows.untyped_storage().data_ptr() == q.untyped_storage().data_ptr()
        assert (rows // members == keys.unsqueeze(2)).all()
        found += rows.ravel().tolist()
    assert sorted(found) == [b * heads + h for b, h in pairs]


def test_the_whole_is_one_part() -> None:
    pairs = [(b, h) for b in range(3) for h in range(8)]
    assert len(parts(pairs, 4)) == 1
    assert len(parts([(b, h) for b, h in pairs if h < 4], 4)) == 1
    assert len(parts([(b, h) for b, h in pairs if h in (1, 2, 5)], 4)) == 2
