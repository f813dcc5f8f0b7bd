"""FlashAttention's rule on a GPU: at most twice the error of dense attention in the same dtype, for every index map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from spattn.frontend.syntax import Node
from tests.kernels import Inputs, drawn, expected, mask_of, run

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]

PATTERNS = {
    "full": "full",
    "causal": "causal",
    "window": "last(256)",
    "window to both sides": "local(100, 28)",
    "dilated": "last(64, dilation=4)",
    "strided": "strided(64) & causal | last(64)",
    "columns": "columns([::128]) & causal | last(100)",
    "runs": "fixed(128, 8) & causal",
    "chunks": "chunk(300, back=1) & causal",
    "prefix": "prefix(200) | causal",
    "sink": "sink(4) | last(256)",
    "owners": "local(128) | global([0, 7, -1])",
    "tail": "tail(40) | local(64)",
    "rows": "rows([::32]) | last(40)",
    "blocks by name": "blockwise(64, local(1) | global([0, -1]))",
    "random": "random(3) | local(64)",
    "random, causal": "random(3, past=true) & causal",
    "bigbird": "local(96) | global([0:64]) | random(3)",
    "documents": "documents(ids) & causal",
    "within": "within(ids, sink(4) | last(64))",
    "table": "blocks(table, size=64) & causal",
    "lengths": "valid(n) & local(200)",
    "tokens": "global(tokens) | last(128)",
    "grid": "neighborhood(grid=[32, 64], kernel=[7, 9])",
    "complement": "~local(100)",
    "heads": "heads([0]) & causal | heads([1:]) & last(64)",
    "expression": "where(t[q] <= t[k]) & causal",
}
NARROW = ((16, 32), (64, 16), (128, 32), (32, 128), (256, 24))
LENGTHS = ((1, 1), (1, 1000), (127, 127), (1000, 1000), (300, 2048), (2048, 2048))


def tensors(pattern: str, kv_len: int, batch: int) -> dict[str, Any]:
    random = np.random.default_rng(kv_len)
    known = {
        "ids": np.sort(random.integers(0, 6, (batch, kv_len))),
        "table": random.random((batch, 1, 32, 32)) < 0.3,
        "n": random.integers(kv_len // 2, kv_len + 1, batch),
        "tokens": random.integers(0, kv_len, (batch, 9)),
        "t": random.integers(0, 9, kv_len),
    }
    words = pattern.replace("(", " ").replace(",", " ").replace(")", " ").replace("[", " ").split()
    return {name: value for name, value in known.items() if name in words}


def check(pattern: str | Node, given: Inputs) -> None:
    out, lse = run(pattern, given, tile=None)
    mask = mask_of(pattern, given).to(out.device)
    wanted, wanted_lse = expected(pattern, given, mask)
    group = given.q.shape[1] // given.k.shape[1]
    k, v = (x.repeat_interleave(group, 1) for x in (given.k, given.v))
    scores = (given.q @ k.transpose(-1, -2)) * given.q.shape[-1] ** -0.5
    dense = scores.masked_fill(~mask, -torch.inf).softmax(-1).masked_fill(~mask, 0) @ v
    rounded = wanted.to(out.dtype)
    floor = 2 * ((rounded + 0.3 - 0.3) - rounded).abs().max().item()
    error, allowed = ((x.double() - wanted).abs().max().item() for x in (out, dense))
    assert error <= 2 * allowed + floor, f"{error:.2e}, dense attention has {allowed:.2e}"
    torch.testing.assert_close(lse.double(), wanted_lse, atol=1e-4, rtol=1e-5)
    assert (out[~mask.any(-1)] == 0).all()


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(name: str) -> None:
    index = list(PATTERNS).index(name)
    dtype = (torch.bfloat16, torch.float16)[index % 2]
    head_dim = (64, 128)[index // 2 % 2]
    for i, (q_len, kv_len) in enumerate(LENGTHS):
        batch = 1 + i % 2
        options = {"dtype": dtype, "device": "cuda", "tensors": tensors(PATTERNS[name], kv_len, batch)}
        check(PATTERNS[name], drawn(q_len, kv_len, batch=batch, heads=(4, 2), dims=(head_dim, head_dim), **options))


@pytest.mark.parametrize("dims", [(16, 16), (32, 32), (40, 40), (80, 80), (96, 64), (192, 128), (256, 256)], ids=str)
def test_head_dimensions(dims: tuple[int, int]) -> None:
    check("last(100)", drawn(300, 300, heads=(2, 1), dims=dims, dtype=torch.bfloat16, device="cuda"))


@pytest.mark.parametrize("dims", NARROW, ids=str)
@pytest.mark.parametrize("pattern", ["last(100)", "~random(3, block=7)"])
def test_values_much_narrower_or_wider_than_keys(pattern: str, dims: tuple[int, int]) -> None:
    check(pattern, drawn(300, 300, dims=dims, dtype=torch.float16, device="cuda"))


@pytest.mark.parametrize("heads", [(1, 1), (8, 1), (6, 2)], ids=str)
def test_groups_of_heads(heads: tuple[int, int]) -> None:
    check("causal", drawn(200, 260, heads=heads, dims=(64, 64), dtype=torch.bfloat16, device="cuda"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("pattern", ["causal", "strided(8) | last(9)"])
def test_float32_is_exact_to_its_own_rounding(pattern: str) -> None:
    check(pattern, drawn(300, 300, dims=(64, 64), dtype=torch.float32, device="cuda"))


@pytest.mark.parametrize("scale", [0.0, -0.2, 3.0])
def test_scales(scale: float) -> None:
    given = drawn(130, 200, dims=(64, 64), dtype=torch.float16, device="cuda", scale=scale)
    out, lse = run("last(50)", given, tile=None)
    wanted, wanted_lse = expected("last(50)", given, mask_of("last(50)", given).cuda())
    torch.testing.assert_close(out.double(), wanted, atol=4e-3, rtol=4e-3)
    torch.testing.assert_close(lse.double(), wanted_lse, atol=1e-3, rtol=1e-3)
