"""Scores in generated kernels: those drawn from their language, beside the oracle, with their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spattn
from spattn import oracle
from spattn.errors import UnsupportedError
from spattn.frontend.parser import parse as parse_pattern
from spattn.frontend.syntax import Node
from spattn.scores.nodes import Score
from spattn.scores.parser import parse
from tests import strategies
from tests.scores.drawn import SCORES, floats_for

pytestmark = [
    pytest.mark.interpret,
    # of pairs that are masked then
    pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:overflow encountered"),
]

BATCH, HEADS, GROUP, DIM = 2, 4, 2, 16
CAUSAL = parse_pattern("causal")


def leaves(q_len: int, kv_len: int) -> list[torch.Tensor]:
    torch.manual_seed(q_len)
    sizes = (HEADS, q_len), (HEADS // GROUP, kv_len), (HEADS // GROUP, kv_len)
    return [torch.randn(BATCH, heads, length, DIM).requires_grad_() for heads, length in sizes]


def check(node: Node, score: Score, q_len: int, kv_len: int, tensors: dict[str, Any]) -> None:
    """Results and gradients by kernels, within float32's rounding of the oracle's."""
    qkv, floats = leaves(q_len, kv_len), floats_for(score, HEADS)
    mask = oracle.mask(node, q_len, kv_len, num_heads=HEADS, batch_size=BATCH, tensors=tensors)
    names = {name: torch.as_tensor(x) for name, x in tensors.items()}
    attn = spattn.compile(str(node), score=str(score), backend="triton")
    mine = attn(*qkv, return_lse=True, **names, **floats)
    theirs = oracle.attention(*qkv, mask, score=score, floats=floats)
    given = [*qkv, *floats.values()]
    found = [
        torch.autograd.grad(x[0].sin().sum() + x[1].cos().nan_to_num().sum(), given, allow_unused=True)
        for x in (mine, theirs)
    ]
    for one, other in zip((*mine, *found[0]), (*theirs, *found[1]), strict=True):
        other = torch.zeros_like(one) if other is None else other
        one = torch.zeros_like(other) if one is None else one
        size = 1 + other.nan_to_num(neginf=0).abs().max().item()
        torch.testing.assert_close(one.double(), other.double(), atol=2e-5 * size, rtol=1e-4)


@settings(max_examples=4, deadline=None)
@given(strategies.patterns(depth=1), SCORES, st.integers(1, 40), st.integers(1, 40), st.data())
def test_drawn_scores(node: Node, score: Score, q_len: int, kv_len: int, data: st.DataObject) -> None:
    tensors = data.draw(strategies.tensors_for(node, q_len, kv_len, BATCH, HEADS))
    check(node, score, q_len, kv_len, tensors)


@pytest.mark.parametrize(
    "text",
    [
        "apply(2)",
        "apply(exp(-1) * s) + bias(log(1 / 2) + min(3, 4) - abs(-2))",
        "apply(abs(q - k))",
        "bias(q * q * q * k * 1000000 / 1000000000000)",
        "bias(2000000000 * 2000000000 * q * k / 4e21)",  # would wrap as a whole number
        "apply(max(s, 0))",
        "apply(s / (1 + abs(s)))",
        "bias(t[b, h, q, k])",
    ],
)
def test_kinds_of_numbers(text: str) -> None:
    """Constants, whole numbers beyond 32 bits, functions without a derivative somewhere, reads of many indices."""
    score = parse(text)
    if "t[" in text:
        qkv, t = leaves(20, 20), torch.randn(BATCH, HEADS, 20, 20)
        out = spattn.attention(*qkv, "causal", score=text, t=t, backend="triton")
        wanted, _ = oracle.attention(*qkv, oracle.mask(CAUSAL, 20, 20), score=score, floats={"t": t})
        torch.testing.assert_close(out.double(), wanted, atol=1e-5, rtol=1e-5)
    else:
        check(CAUSAL, score, 33, 33, {})


def test_masks_that_read_beside_scores_that_read() -> None:
    """Names of a score's elements are none that a mask calls; NaN stays NaN."""
    q, _, _ = (x.detach() for x in leaves(20, 20))
    k = q[:, :GROUP].clone()
    given: dict[str, Any] = {"ids": torch.arange(20) // 7, "slopes": torch.rand(HEADS), "c": torch.tensor(3.0)}
    q[0, 0, 5] = torch.nan
    calls = [
        ("documents(ids) & causal", "softcap(c) + alibi(slopes)", given),
        ("causal", "apply(max(s, -5))", {}),
    ]
    for pattern, score, names in calls:
        made = (spattn.attention(q, k, k, pattern, score=score, backend=one, **names) for one in ("triton", "torch"))
        torch.testing.assert_close(*made, atol=1e-5, rtol=1e-5, equal_nan=True)


def test_frames_and_requests() -> None:
    q, k, v = (x.detach() for x in leaves(12, 30))
    slopes, attn = torch.rand(HEADS), spattn.compile("last(9)", score="alibi(slopes)", backend="triton")
    other = spattn.compile("last(9)", score="alibi(slopes)", backend="torch")
    calls: list[dict[str, Any]] = [
        {"q_offset": 40, "k_offset": 25, "kv_len": 70, "missing_keys": "ignore"},
        {"q_lens": torch.tensor([12, 5]), "kv_lens": torch.tensor([30, 17])},
    ]
    for call in calls:
        mine, theirs = (one(q, k, v, slopes=slopes, return_lse=True, **call) for one in (attn, other))
        for x, y in zip(mine, theirs, strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_gradients_of_tensors_are_in_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of q, k and v are, where no others are recorded."""
    q, k, v = leaves(12, 30)
    slopes, attn = torch.rand(HEADS), spattn.compile("causal", score="alibi(slopes)", backend="triton")
    monkeypatch.setattr("spattn.gpu.autograd.is_captured", lambda *tensors: True)
    torch.autograd.grad(attn(q, k, v, slopes=slopes).sum(), (q, k, v))
    out = attn(q, k, v, slopes=slopes.requires_grad_())
    with pytest.raises(UnsupportedError, match="E061: no graph captures the gradients of a score's tensors"):
        torch.autograd.grad(out.sum(), (q, slopes))
