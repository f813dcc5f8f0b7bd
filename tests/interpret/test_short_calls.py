"""Calls of fewer rows than a pattern has residue classes: their kernels launch the classes that they have."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import spattn

pytestmark = pytest.mark.interpret


@pytest.mark.parametrize("pattern", ["strided(8) & causal | last(5)", "last(40, dilation=8)"])
@pytest.mark.parametrize(
    ("q_len", "kv_len", "call"),
    [(1, 100, {}), (3, 90, {}), (8, 64, {}), (9, 50, {}), (2, 60, {"q_offset": 5}), (4, 30, {"q_offset": -2})],
)
def test_short_calls(pattern: str, q_len: int, kv_len: int, call: dict[str, Any]) -> None:
    torch.manual_seed(0)
    given = [torch.randn(2, 2, n, 16).requires_grad_() for n in (q_len, kv_len, kv_len)]
    found = []
    for backend in ("triton", "torch"):
        out, lse = spattn.compile(pattern, backend=backend)(*given, return_lse=True, **call)
        loss = out.sin().sum() + lse.nan_to_num(neginf=0).sum()
        found.append((out, lse, *torch.autograd.grad(loss, given)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
