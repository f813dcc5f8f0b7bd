"""Scores on a GPU, by FlashAttention's rule: beside dense attention that computes them in the same dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import spattn
from spattn import oracle
from spattn.errors import UnsupportedError
from spattn.frontend.parser import parse as parse_pattern
from spattn.scores.evaluation import Values, evaluated
from spattn.scores.nodes import Score
from spattn.scores.parser import parse
from spattn.scores.words import reads, steps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]

SCORES = {
    "softcap": "softcap(5)",
    "alibi": "alibi(slopes)",
    "both": "softcap(c) + alibi(slopes)",
    "bias": "bias(t[h, q - k])",
    "clipped": "bias(t[h, min(q - k, 31)])",
    "any": "apply(s / (1 + abs(s)) * 3 - tanh(q / 100) + h / 4)",
}
PATTERNS = (
    "causal",
    "last(100)",
    "strided(16) & causal | last(20)",
    "local(64) | global([0, 7])",
    "random(2) | local(64)",
)
HEADS = 4


def floats_for(score: Score, dtype: torch.dtype) -> dict[str, Tensor]:
    sizes = {0: (), 1: (HEADS,), 2: (HEADS, 32)}
    found = {name: torch.rand(sizes[rank] or (1,), device="cuda", dtype=dtype) for name, rank in reads(score).items()}
    return {name: (one + 2 if name == "c" else one).requires_grad_() for name, one in found.items()}


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, score: Score, floats: dict[str, Tensor]) -> Tensor:
    """In the dtype of q."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    s = q @ k.mT * q.shape[-1] ** -0.5
    shape, device = s.shape, q.device
    places = {name: torch.arange(shape[i], device=device) for i, name in enumerate("bhqk")}
    places["q"] = places["q"] + shape[3] - shape[2]
    places = {name: x.view([-1 if i == j else 1 for j in range(4)]) for i, (name, x) in enumerate(places.items())}
    tensors = {name: one.to(q.dtype) for name, one in floats.items()}
    for step in steps(score):
        s = evaluated(step, Values({**places, "s": s}, tensors)).expand_as(s)
    s = s.masked_fill(~mask, -torch.inf).masked_fill(~mask.any(-1, keepdim=True), 0)
    return s.softmax(-1).masked_fill(~mask, 0) @ v


def check(pattern: str, score: Score, lengths: tuple[int, int], dim: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q_len, kv_len = lengths
    sizes = (HEADS, q_len), (2, kv_len), (2, kv_len)
    qkv = [torch.randn(2, n, length, dim, device="cuda", dtype=dtype).requires_grad_() for n, length in sizes]
    floats = floats_for(score, torch.float32)
    mask = torch.as_tensor(
        oracle.mask(parse_pattern(pattern), q_len, kv_len, num_heads=HEADS, batch_size=2), device="cuda"
    )
    mask = mask.expand(2, HEADS, q_len, kv_len)
    d_out = torch.randn(2, HEADS, q_len, dim, device="cuda", dtype=dtype)
    given = [*qkv, *floats.values()]
    mine = spattn.attention(*qkv, pattern, score=str(score), backend="triton", **floats)
    rough = dense(*qkv, mask, score, floats)
    exact, _ = oracle.attention(*qkv, mask, score=score, floats=floats)
    answers = [[x, *torch.autograd.grad(x, given, d_out.to(x.dtype))] for x in (mine, rough, exact)]
    for name, one, other, wanted in zip(("out", "dq", "dk", "dv", *floats), *answers, strict=True):
        wanted = wanted.double()
        rounded = wanted.to(dtype)
        floor = 2 * ((rounded + 0.3 - 0.3) - rounded).abs().max().item() + 1e-5 * (1 + wanted.abs().max().item())
        error, allowed = ((x.double() - wanted).abs().max().item() for x in (one, other))
        times = 2 if name == "out" else 3
        assert error <= times * allowed + floor, f"{name}: {error:.2e}, dense attention has {allowed:.2e}"


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_scores(pattern: str, name: str) -> None:
    number = PATTERNS.index(pattern) + list(SCORES).index(name)
    dtype, dim = (torch.bfloat16, torch.float16)[number % 2], (64, 128)[number // 2 % 2]
    for lengths in ((127, 127), (300, 700)):
        check(pattern, parse(SCORES[name]), lengths, dim, dtype)


def test_float32() -> None:
    check("last(50)", parse(SCORES["both"]), (200, 200), 64, torch.float32)


def test_compiled_captured_and_again() -> None:
    """One graph of torch.compile, a captured graph that follows its tensors, calls of other lengths."""
    attn = spattn.compile("last(100)", score="softcap(c) + alibi(slopes)", backend="triton")
    slopes, c = (torch.rand(n, device="cuda") + 1 for n in (HEADS, 1))

    def call(*qkv: Tensor) -> Tensor:
        return attn(*qkv, slopes=slopes, c=c)

    qkv = [torch.randn(1, HEADS, 256, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    wanted = call(*qkv)
    made: Any = torch.compile(call, fullgraph=True)
    assert torch.equal(made(*qkv), wanted)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(*qkv)
    slopes.mul_(2)
    c.add_(3)
    graph.replay()
    assert torch.equal(out, call(*qkv))
    assert not torch.equal(out, wanted)
    for length in (200, 256, 100):
        parts = [x[:, :, :length].contiguous() for x in qkv]
        assert torch.equal(call(*parts), attn(*parts, slopes=slopes.clone(), c=c.clone()))


def test_no_graph_captures_gradients_of_what_a_score_reads() -> None:
    attn = spattn.compile("causal", score="alibi(slopes)", backend="triton")
    q, slopes = torch.randn(1, HEADS, 128, 64, device="cuda"), torch.rand(HEADS, device="cuda", requires_grad=True)

    def step() -> Tensor:
        return torch.autograd.grad(attn(q, q, q, slopes=slopes).sum(), slopes)[0]

    step()
    with pytest.raises(UnsupportedError, match="E061"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        step()
    torch.cuda.synchronize()
    assert step().isfinite().all()
