"""The kernel that appends, in Triton's interpreter, beside torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spattn
from spattn import serving
from spattn.serving import append as appending
from tests.serving.caches import KINDS, Requests, Shape, cache_of, ends_of, ring_of, shapes

pytestmark = pytest.mark.interpret
pytest.importorskip("triton")
RING = "causal & (last(5) | columns([0:3, ::5, 11]))"
STEPS = st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=1, max_size=3)


def pair(kind: str, shape: Shape) -> tuple[serving.Storage, serving.Storage]:
    """Two caches that are alike."""
    if kind != "ring":
        return cache_of(kind, shape), cache_of(kind, shape)
    live = spattn.parse(RING).live()
    return ring_of(live, shape, 2), ring_of(live, shape, 2)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.uint8)


@settings(max_examples=15)
@given(st.sampled_from([*KINDS, "ring", "ring"]), shapes(), STEPS, st.booleans())
def test_the_kernel_writes_what_torch_writes(kind: str, shape: Shape, steps: list[list[int]], packed: bool) -> None:
    one, other = pair(kind, shape)
    requests = Requests(shape)
    for counts in steps:
        new = counts[: shape.batch] if packed else [counts[0]] * shape.batch
        ends = ends_of(new) if packed else None
        parts = [slice(n, n + m) for n, m in zip(requests.lens, new, strict=True)]
        if packed:
            # tokens before the first request and behind the last one are nobody's
            given = [torch.cat([x[b, :, part] for b, part in enumerate(parts)], 1) for x in (requests.k, requests.v)]
            k, v = (
                torch.cat([x[:, :1] * 0, x, x[:, :1]], 1).transpose(0, 1)[None] if x.numel() else None for x in given
            )
            ends = ends + 1 if ends is not None else None
        else:
            k, v = (
                torch.stack([x[b, :, p] for b, p in enumerate(parts)]).transpose(1, 2) for x in (requests.k, requests.v)
            )
        if k is None or v is None:
            continue
        appending.append_by_torch(one, k, v, ends)
        appending.append_by_kernel(other, k, v, ends)
        for mine, theirs in ((one.keys, other.keys), (one.values, other.values)):
            assert torch.equal(bits(mine), bits(theirs))
        requests.lens = [n + m for n, m in zip(requests.lens, new, strict=True)]
        for cache in (one, other):
            cache.kv_lens.copy_(torch.tensor(requests.lens))


def test_many_requests_are_told_apart() -> None:
    counts = [0, 2, 0, 0, 1, 3, 1, 0, 2, 0]
    one, other = pair("csr", Shape(batch=10))
    k, v = torch.randn(1, 9, 2, 16), torch.randn(1, 9, 2, 8)
    appending.append_by_torch(one, k, v, ends_of(counts))
    appending.append_by_kernel(other, k, v, ends_of(counts))
    assert torch.equal(bits(one.keys), bits(other.keys))


@pytest.mark.parametrize("kind", ["dense", "rows", "csr", "ring"])
def test_a_token_without_a_slot_is_left_out(kind: str) -> None:
    shape, requests = Shape(tokens=8), Requests(Shape(tokens=20))
    _, cache = pair(kind, shape)
    cache.kv_lens.fill_(7)
    before = cache.keys.clone()
    new = (x[:, :, :4].transpose(1, 2).contiguous() for x in (requests.k, requests.v))
    appending.append_by_kernel(cache, *new, None)
    changed = (bits(cache.keys) != bits(before)).view(*before.shape[:3], -1).any(-1).any(-1)
    assert int(changed.sum()) == 2


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("given_dtype", [torch.float32, torch.float16])
def test_float8_is_that_of_torch(dtype: torch.dtype, given_dtype: torch.dtype) -> None:
    scales = {"k_scale": 0.5, "v_scale": torch.tensor([2.0, 0.25])}
    one, other = (cache_of("rows", Shape(dtype=dtype), **scales) for _ in range(2))
    k, v = (torch.randn(2, 3, 2, width).to(given_dtype) * 40 for width in (16, 8))
    k[0, 0, 0, 0], v[0, 0, 0, 0], v[1, 1, 1, 1], k[1, 1, 1, 1] = 6e4, -6e4, torch.nan, -torch.inf
    k[1, 0, 0] = torch.logspace(-6, 2, 16) * (1 - 2 * (torch.arange(16) % 2))
    k[1, 0, 1] = torch.arange(16) * 2**-10  # ties, and what has no bit before the point
    appending.append_by_torch(one, k, v, None)
    appending.append_by_kernel(other, k, v, None)
    for mine, theirs in ((one.keys, other.keys), (one.values, other.values)):
        assert torch.equal(mine.float().nan_to_num(999), theirs.float().nan_to_num(999))
