"""Decode steps beside the oracle, request by request; whatever must not be read holds NaN."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import spattn
from spattn import serving
from spattn.errors import ArgumentError, BindError, NotDecodableError, UnsupportedError
from spattn.frontend.syntax import Node
from spattn.serving import ring as rings
from tests.serving.caches import KINDS, Requests, Shape, cache_of, ends_of, expected, ring_of, shapes
from tests.serving.test_caches import RINGS
from tests.strategies import patterns, tensors_for

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3}


def decoder_of(attn: spattn.Attention, shape: Shape, group: int = 1, **options: Any) -> serving.Decoder:
    sizes: dict[str, Any] = {
        "num_q_heads": shape.heads * group,
        "num_kv_heads": shape.heads,
        "head_dim": shape.dim,
        "v_head_dim": shape.v_dim,
        "max_batch": shape.batch,
        "max_kv_len": shape.tokens,
        "max_new": 5,
        "dtype": shape.dtype,
        "device": "cpu",
    }
    return attn.decoder(**{**sizes, **options})


def queries(shape: Shape, group: int, counts: list[int], seed: int = 3) -> list[Tensor]:
    """Of each request `[num_q_heads, rows, head_dim]`."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(shape.heads * group, m, shape.dim) for m in counts]
    return [torch.randn(*size, generator=generator).to(shape.dtype) for size in sizes]


def packed(q: list[Tensor]) -> Tensor:
    return torch.cat(q, 1).transpose(0, 1).contiguous()


def check(found: tuple[Tensor, Tensor], want: list[tuple[Tensor, Tensor]], lens: list[int], dtype: torch.dtype) -> None:
    """Packed out and lse; rows of a request without keys are 0 and -inf."""
    empty = [n == 0 for n in lens]
    out = torch.cat([x * 0 if none else x for (x, _), none in zip(want, empty, strict=True)], 1).transpose(0, 1)
    lse = torch.cat([x.fill_(-torch.inf) if none else x for (_, x), none in zip(want, empty, strict=True)], 1)
    torch.testing.assert_close(found[0].double(), out, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    torch.testing.assert_close(found[1].double(), lse, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@st.composite
def steps(draw: st.DrawFn, batch: int, most: int) -> tuple[list[int], list[int]]:
    """New rows of each request, and the tokens that it holds with them; some have none."""
    counts = draw(st.lists(st.integers(0, 5), min_size=batch, max_size=batch))
    return counts, [draw(st.integers(m, most)) if m else draw(st.integers(0, 9)) for m in counts]


@settings(max_examples=40)
@given(patterns(depth=2), st.sampled_from(KINDS), shapes(), st.integers(1, 8), st.booleans(), st.data())
def test_a_step_is_the_last_rows_of_a_call(
    node: Node, kind: str, shape: Shape, group: int, with_sinks: bool, data: st.DataObject
) -> None:
    counts, lens = data.draw(steps(shape.batch, shape.tokens))
    heads = shape.heads * group
    given_tensors = data.draw(tensors_for(node, max(counts), max(*lens, 1), shape.batch, heads))
    tensors = {name: torch.as_tensor(x) for name, x in given_tensors.items()}
    sinks = torch.linspace(-1, 1, heads) if with_sinks else None
    cache, requests = cache_of(kind, shape), Requests(shape)
    requests.append([cache], [n - m for n, m in zip(lens, counts, strict=True)])
    requests.append([cache], counts)
    q = queries(shape, group, counts)
    step = decoder_of(spattn.compile(str(node), backend="torch"), shape, group)
    found = step(packed(q), cache, ends_of(counts), return_lse=True, sinks=sinks, **tensors)
    check(found, expected(node, requests, q, tensors, sinks), lens, shape.dtype)


@settings(max_examples=20)
@given(st.sampled_from(RINGS), shapes(), st.sampled_from([1, 5, 7]), st.integers(0, 2), st.booleans(), st.data())
def test_a_ring_answers_as_if_it_held_all_keys(
    text: str, shape: Shape, group: int, rollback: int, apart: bool, data: st.DataObject
) -> None:
    pattern = spattn.parse(text)
    ring, requests = ring_of(pattern.live(), shape, 3, rollback), Requests(shape)
    step = decoder_of(spattn.compile(pattern, backend="torch"), shape, group, max_new=3)
    requests.append([ring], data.draw(st.lists(st.integers(0, 20), min_size=shape.batch, max_size=shape.batch)))
    for i in range(3):
        counts = data.draw(st.lists(st.integers(0, 3), min_size=shape.batch, max_size=shape.batch))
        requests.append([ring], counts)
        q = queries(shape, group, counts, seed=i)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rings, "GAP", 0 if apart else rings.GAP)
            found = step(packed(q), ring, ends_of(counts), return_lse=True)
        check(found, expected(pattern.syntax, requests, q, {}), requests.lens, shape.dtype)


@pytest.mark.parametrize("text", ["causal & (last(20) | columns([0:4, ::16]))", "chunk(32) & causal"])
def test_a_ring_equals_a_dense_cache_and_the_whole_call_over_hundreds_of_tokens(text: str) -> None:
    shape = Shape(batch=1, tokens=320, v_dim=16)
    pattern, requests = spattn.parse(text), Requests(shape)
    attn = spattn.compile(pattern, backend="torch")
    caches = [ring_of(pattern.live(), shape, 4), cache_of("dense", shape)]
    step = decoder_of(attn, shape, max_new=4)
    q = torch.randn(1, 2, shape.tokens, shape.dim, generator=torch.Generator().manual_seed(1))
    whole = attn(q, requests.k, requests.v)
    for first in range(0, shape.tokens, 4):
        requests.append(caches, [4], packed=False)
        mine, theirs = (step(q[:, :, first : first + 4].contiguous(), cache) for cache in caches)
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(mine, whole[:, :, first : first + 4], atol=1e-5, rtol=1e-5)
    assert caches[0].keys.shape[1] < 60


def test_rows_of_no_request_stay_as_they_are() -> None:
    shape = Shape(batch=3)
    cache, requests = cache_of("rows", shape), Requests(shape)
    requests.append([cache], [4, 0, 0])
    step = decoder_of(spattn.compile("causal", backend="torch"), shape)
    # the second has rows and no keys, the third has neither; two more rows are nobody's
    q, ends = torch.randn(6, 2, 16), torch.tensor([0, 2, 4, 4], dtype=torch.int32)
    out = torch.full((6, 2, 8), 5.0)
    found, lse = step(q, cache, ends, out=out, return_lse=True)
    assert found is out
    assert (out[2:] == 5).all()
    assert (out[:2] != 5).all()
    assert lse[:, 2:].isneginf().all()
    fresh = step(q, cache, ends)
    assert torch.equal(fresh[:2], out[:2])
    assert not fresh[2:].any()
    padded = step(torch.randn(3, 2, 1, 16), cache, out=torch.full((3, 2, 1, 8), 5.0))
    assert (padded[1:] == 5).all()


def test_scores_and_scale() -> None:
    shape = Shape(v_dim=16)
    cache, requests = cache_of("dense", shape), Requests(shape)
    requests.append([cache], [9, 30])
    attn = spattn.compile("causal & last(12)", score="softcap(2.5) + alibi(slopes)", backend="torch")
    q, slopes = torch.randn(2, 2, 2, 16), torch.tensor([0.3, 0.1])
    found = decoder_of(attn, shape)(q, cache, scale=0.7, slopes=slopes)
    for b, n in enumerate(requests.lens):
        k, v = (x[b : b + 1, :, :n] for x in (requests.k, requests.v))
        torch.testing.assert_close(found[b : b + 1], attn(q[b : b + 1], k, v, scale=0.7, slopes=slopes))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_read_with_its_scale(dtype: torch.dtype) -> None:
    shape = Shape(dtype=dtype)
    scales = {"k_scale": torch.tensor([0.05, 0.2]), "v_scale": 0.1}
    cache, requests = cache_of("rows", shape, **scales), Requests(Shape())
    requests.append([cache], [9, 30])
    k, v = requests.k / scales["k_scale"][:, None, None], requests.v / 0.1
    requests.k = k.to(dtype).float() * scales["k_scale"][:, None, None]
    requests.v = v.to(dtype).float() * 0.1
    node, q = spattn.parse("causal").syntax, queries(Shape(), 2, [3, 1])
    step = decoder_of(spattn.compile("causal", backend="torch"), Shape(), 2)
    found = step(packed(q), cache, ends_of([3, 1]), return_lse=True)
    check(found, expected(node, requests, q, {}), requests.lens, torch.float32)


def test_a_key_on_a_dropped_page_is_never_taken_for_a_number() -> None:
    shape = Shape(batch=1)
    cache, requests = cache_of("rows", shape), Requests(shape)
    requests.append([cache], [20])
    assert cache.table is not None
    cache.table[0, 1] = -1
    q = torch.randn(1, 2, 1, 16)
    assert decoder_of(spattn.compile("causal", backend="torch"), shape)(q, cache).isnan().all()
    assert decoder_of(spattn.compile("causal & last(12)", backend="torch"), shape)(q, cache).isfinite().all()


def ring(text: str, **options: Any) -> serving.Storage:
    return ring_of(spattn.parse(text).live(), Shape(), options.pop("max_new", 5), **options)


Q = torch.zeros(2, 2, 1, 16)
CALLS: list[tuple[str, Any, str]] = [
    ("causal", lambda step: step(Q, Q), "the cache is a Tensor"),
    ("causal", lambda step: step(Q[:1], cache_of("dense", Shape())), "q has shape .*, not .2, 2, q_len, 16."),
    ("causal", lambda step: step(Q.half(), cache_of("dense", Shape())), "q is torch.float16"),
    (
        "causal",
        lambda step: step(torch.zeros(2, 2, 6, 16), cache_of("dense", Shape())),
        "6 rows a request; max_new is 5",
    ),
    (
        "causal",
        lambda step: step(Q[:, :, 0], cache_of("dense", Shape()), ends_of([2])),
        "the ends of all requests, .3.",
    ),
    ("causal", lambda step: step(torch.zeros(6, 2, 16), full(Shape()), ends_of([6, 0])), "max_new"),
    ("causal", lambda step: step(torch.zeros(2, 2, 16), full(Shape()), ends_of([1, 2])), "at most"),
    ("causal", lambda step: step(Q, cache_of("dense", Shape(heads=1))), "the cache has .num_kv_heads"),
    ("causal", lambda step: step(Q, cache_of("dense", Shape(dtype=torch.float16))), "the cache is torch.float16"),
    ("causal", lambda step: step(Q, cache_of("dense", Shape(batch=3))), "3 requests; max_batch is 2"),
    ("causal", lambda step: step(Q, full(Shape(tokens=50))), "a request holds 40 tokens at most"),
    ("causal", lambda step: step(Q, cache_of("dense", Shape()), out=Q), "out is torch.float32"),
    ("causal", lambda step: step(Q, cache_of("dense", Shape()), sinks=torch.zeros(3)), "sinks has shape"),
    ("causal", lambda step: step(Q, full(Shape()), ids=torch.zeros(3)), "reads no tensor ids"),
    ("last(9)", lambda step: step(Q, ring("last(8)")), "the ring drops keys that last.9. needs: of 8 tokens key 0"),
    ("last(9)", lambda step: step(Q, ring("last(9)", max_new=4)), "room for 4 new tokens a call, and max_new is 5"),
    ("causal & (last(8) | sink(3))", lambda step: step(Q, ring("causal & (last(8) | sink(2))")), "tokens key 2"),
    ("causal", lambda step: step(Q, ring("last(8)")), "the ring drops keys that causal needs"),
    ("global([-1]) & causal", lambda step: step(Q, ring("last(8)")), "query 0 attends key 0 among 1 key"),
]


def full(shape: Shape) -> serving.Storage:
    """A cache whose requests hold all that they may."""
    cache, requests = cache_of("dense", shape), Requests(shape)
    requests.append([cache], [shape.tokens] * shape.batch)
    return cache


@pytest.mark.parametrize(("text", "call", "message"), CALLS, ids=[message for *_, message in CALLS])
def test_what_does_not_fit_is_refused(text: str, call: Any, message: str) -> None:
    step = decoder_of(spattn.compile(text, backend="torch"), Shape())
    with pytest.raises((ArgumentError, BindError, NotDecodableError, UnsupportedError), match=message):
        call(step)


def test_a_ring_serves_calls_that_are_no_longer_than_it() -> None:
    shape = Shape(tokens=12)
    cache, requests = ring("last(12)"), Requests(shape)
    requests.append([cache], [12, 5])
    q = queries(shape, 1, [1, 1])
    step = decoder_of(spattn.compile("causal", backend="torch"), shape)
    found = step(packed(q), cache, ends_of([1, 1]), return_lse=True)
    check(found, expected(step.attention.pattern.syntax, requests, q, {}), requests.lens, shape.dtype)


def test_a_ring_of_a_larger_pattern_serves() -> None:
    shape = Shape()
    cache, requests = ring("causal & (last(12) | columns([::4]))"), Requests(shape)
    requests.append([cache], [30, 17])
    q = queries(shape, 1, [1, 1])
    step = decoder_of(spattn.compile("causal & (last(9) | columns([4, 8]))", backend="torch"), shape)
    found = step(packed(q), cache, ends_of([1, 1]), return_lse=True)
    check(found, expected(step.attention.pattern.syntax, requests, q, {}), requests.lens, shape.dtype)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_kv_heads": 3}, "3 key heads do not divide 2"),
        ({"max_new": 0}, "max_new is a number from 1"),
        ({"dtype": "int8"}, "int8"),
    ],
)
def test_a_decoder_of_odd_sizes_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        decoder_of(spattn.compile("causal"), Shape(), **options)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted kernels run on a CPU")
def test_kernels_have_no_decoder_on_a_cpu() -> None:
    with pytest.raises(UnsupportedError, match="the decoder is on cpu, and Triton's kernels run on GPUs"):
        decoder_of(spattn.compile("causal", backend="triton"), Shape())
