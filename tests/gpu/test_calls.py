"""Calls as users make them: the second of its kind takes a shorter way, and gives the same."""

from __future__ import annotations

import pytest
import torch

import spattn

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]

PATTERNS = (
    "last(100)",
    "last(70) | strided(16) & causal",
    "local(20) | global([0, 5])",
    "local(20) | random(2)",
    "heads([0]) & local(9) | heads([1:]) & causal",
)


def drawn(seed: int, length: int = 700, shift: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator("cuda").manual_seed(seed)
    flat = torch.randn(3, 2 * 4 * length * 64 + 8, generator=generator, device="cuda").bfloat16()
    return [one[shift : shift + 2 * 4 * length * 64].view(2, 4, length, 64) for one in flat]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_later_calls_are_those_of_a_new_function(pattern: str) -> None:
    attn = spattn.compile(pattern, backend="triton")
    attn(*drawn(0))
    for seed in (1, 2):
        for length, shift in ((700, 0), (701, 0), (700, 1), (700, 8)):
            given = drawn(seed, length, shift)
            out, lse = attn(*given, return_lse=True)
            wanted, wanted_lse = spattn.compile(pattern, backend="triton")(*given, return_lse=True)
            assert torch.equal(out, wanted)
            assert torch.equal(lse, wanted_lse)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_later_call_sees_strides_scale_and_offset(pattern: str) -> None:
    attn = spattn.compile(pattern, backend="triton")
    q, k, v = drawn(0)
    dense = attn(q, k, v)
    spread = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(attn(*spread), dense)
    assert not torch.equal(attn(q, k, v, scale=1.0), dense)
    assert not torch.equal(attn(q, k, v, q_offset=64), dense)
    assert torch.equal(attn(q, k, v), dense)


def test_a_later_call_that_wants_a_gradient_is_refused_or_served() -> None:
    attn = spattn.compile("last(100)")
    q, k, v = drawn(0)
    with torch.no_grad():
        plain = attn(q, k, v)
    q.requires_grad_()
    out = attn(q, k, v)
    assert out.requires_grad
    torch.testing.assert_close(out, plain, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_graph_captures_a_later_call(pattern: str) -> None:
    attn = spattn.compile(pattern, backend="triton")
    given, other = drawn(0), drawn(1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            attn(*given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attn(*given)
    for mine, theirs in zip(given, other, strict=True):
        mine.copy_(theirs)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, attn(*other))
