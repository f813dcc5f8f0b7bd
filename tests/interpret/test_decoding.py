"""Decode steps by generated kernels beside the oracle, request by request; whatever must not be read holds NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spattn
from spattn.cost import decode_tiles
from spattn.errors import UnsupportedError
from spattn.frontend.syntax import Node
from tests.serving.caches import KINDS, Requests, Shape, cache_of, ends_of, expected, ring_of, shapes
from tests.serving.test_caches import RINGS
from tests.serving.test_decoder import check, decoder_of, packed, queries, steps
from tests.strategies import patterns, tensors_for

pytestmark = pytest.mark.interpret


def kernels(node: Node | str, shape: Shape, group: int, **options: Any) -> Any:
    """A decoder; what kernels lack is no example."""
    try:
        return decoder_of(spattn.compile(str(node), backend="triton"), shape, group, **options)
    except UnsupportedError:
        assume(False)


@settings(max_examples=12)
@given(patterns(depth=2), st.sampled_from(KINDS), shapes(), st.sampled_from([1, 2, 5, 7]), st.booleans(), st.data())
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
    step = kernels(node, shape, group, max_new=data.draw(st.sampled_from([5, 5, max(*counts, 1)])))
    found = step(packed(q), cache, ends_of(counts), return_lse=True, sinks=sinks, **tensors)
    check(found, expected(node, requests, q, tensors, sinks), lens, shape.dtype)


@settings(max_examples=4)
@given(st.sampled_from(RINGS), shapes(), st.sampled_from([1, 3]), st.integers(0, 2), st.data())
def test_a_ring_answers_as_if_it_held_all_keys(
    text: str, shape: Shape, group: int, rollback: int, data: st.DataObject
) -> None:
    pattern = spattn.parse(text)
    ring, requests = ring_of(pattern.live(), shape, 3, rollback), Requests(shape)
    step = kernels(text, shape, group, max_new=3)
    requests.append([ring], data.draw(st.lists(st.integers(0, 20), min_size=shape.batch, max_size=shape.batch)))
    for i in range(2):
        counts = data.draw(st.lists(st.integers(0, 3), min_size=shape.batch, max_size=shape.batch))
        requests.append([ring], counts)
        q = queries(shape, group, counts, seed=i)
        found = step(packed(q), ring, ends_of(counts), return_lse=True)
        check(found, expected(pattern.syntax, requests, q, {}), requests.lens, shape.dtype)


@pytest.mark.parametrize("splits", [1, 2, 3, 8])
def test_shares_of_keys_add_up(splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their number, in a step after another: what counts the programs that have come is left at 0."""
    monkeypatch.setattr(decode_tiles, "MIN_TILES", 1)
    monkeypatch.setattr(decode_tiles, "MOST_SPLITS", splits)
    shape = Shape(batch=2, tokens=300, dim=16, v_dim=16)
    cache, requests = cache_of("rows", shape), Requests(shape)
    step = decoder_of(spattn.compile("causal", backend="triton"), shape, 3, max_new=2)
    for new in ([250, 7], [1, 1], [2, 2]):
        requests.append([cache], new)
        counts = [min(n, 2) for n in new]
        q = queries(shape, 3, counts)
        found = step(packed(q), cache, ends_of(counts), return_lse=True)
        check(found, expected(spattn.parse("causal").syntax, requests, q, {}), requests.lens, shape.dtype)


def test_a_request_has_the_same_bits_in_any_batch() -> None:
    """Its neighbours, the order of pages, and how many requests there may be change nothing."""
    found = []
    for batch, seed, most in ((1, 0, 1), (3, 5, 7)):
        shape = Shape(batch=batch, tokens=200, dim=16, v_dim=16, dtype=torch.float16)
        cache, requests = cache_of("rows", shape, seed=seed), Requests(shape)
        one = Requests(Shape(batch=1, tokens=200, dim=16, v_dim=16, dtype=torch.float16))
        requests.k[batch - 1], requests.v[batch - 1] = one.k[0], one.v[0]
        requests.append([cache], [90, 3, 150][3 - batch :])
        q = torch.randn(1, 4, 1, 16, generator=torch.Generator().manual_seed(2)).half().expand(batch, -1, -1, -1)
        step = decoder_of(spattn.compile("causal & (last(70) | sink(4))", backend="triton"), shape, 2, max_batch=most)
        found.append(step(q, cache)[batch - 1])
    assert torch.equal(*found)


def test_rows_of_no_request_stay_as_they_are() -> None:
    shape = Shape(batch=3)
    cache, requests = cache_of("rows", shape), Requests(shape)
    requests.append([cache], [4, 0, 0])
    step = decoder_of(spattn.compile("causal", backend="triton"), shape)
    q, ends = torch.randn(6, 2, 16), torch.tensor([0, 2, 4, 4], dtype=torch.int32)
    out = torch.full((6, 2, 8), 5.0)
    _, lse = step(q, cache, ends, out=out, return_lse=True)
    assert (out[2:] == 5).all()
    assert (out[:2] != 5).all()
    assert lse[:, 2:].isneginf().all()
    padded = step(torch.randn(3, 2, 1, 16), cache, out=torch.full((3, 2, 1, 8), 5.0))
    assert (padded[1:] == 5).all()


@pytest.mark.parametrize("scale", [0.7, -0.7, 0.0])
def test_scores_and_scale(scale: float) -> None:
    shape = Shape(v_dim=16)
    cache, requests = cache_of("dense", shape), Requests(shape)
    requests.append([cache], [9, 30])
    score = "softcap(2.5) + alibi(slopes)"
    attn = spattn.compile("causal & last(12)", score=score, backend="torch")
    q, slopes = torch.randn(2, 4, 2, 16), torch.tensor([0.3, 0.1, 0.7, 0.2])
    step = decoder_of(spattn.compile("causal & last(12)", score=score, backend="triton"), shape, 2)
    found = step(q, cache, scale=scale, slopes=slopes)
    for b, n in enumerate(requests.lens):
        k, v = (x[b : b + 1, :, :n] for x in (requests.k, requests.v))
        want = attn(q[b : b + 1], k, v, scale=scale, slopes=slopes)
        torch.testing.assert_close(found[b : b + 1], want, atol=1e-5, rtol=1e-5)


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
    step = decoder_of(spattn.compile("causal", backend="triton"), Shape(), 2)
    found = step(packed(q), cache, ends_of([3, 1]), return_lse=True)
    check(found, expected(node, requests, q, {}), requests.lens, torch.float32)


def test_a_key_that_is_not_held_is_never_taken_for_a_number() -> None:
    shape = Shape(batch=1)
    cache, requests = cache_of("rows", shape), Requests(shape)
    requests.append([cache], [20])
    assert cache.table is not None
    cache.table[0, 1] = -1
    q = torch.randn(1, 2, 1, 16)
    assert decoder_of(spattn.compile("causal", backend="triton"), shape)(q, cache).isnan().all()
    assert decoder_of(spattn.compile("causal & last(12)", backend="triton"), shape)(q, cache).isfinite().all()


@pytest.mark.parametrize("kind", ["dense", "rows", "csr"])
def test_a_request_that_is_too_long_is_no_number(kind: str) -> None:
    shape = Shape(batch=2)
    cache, requests = cache_of(kind, shape), Requests(shape)
    requests.append([cache], [20, 20])
    cache.kv_lens[1] = 41
    found = decoder_of(spattn.compile("causal", backend="triton"), shape, max_kv_len=64)(
        torch.randn(2, 2, 1, 16), cache
    )
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


@pytest.mark.parametrize("kind", ["dense", "rows", "csr"])
@pytest.mark.parametrize(
    "text", ["causal", "causal & (last(30) | sink(4))", "causal & (last(9) | strided(8))", "causal & columns([::4])"]
)
def test_keys_that_requests_share_are_read_once(text: str, kind: str) -> None:
    """As if each request had them for itself; one has no keys, and shared pages are not a whole number of tiles."""
    shape = Shape(batch=4, heads=2, tokens=120, page_size=8)
    cache, requests = cache_of(kind, shape), Requests(shape)
    requests.k[:, :, :40], requests.v[:, :, :40] = requests.k[:1, :, :40], requests.v[:1, :, :40]
    requests.append([cache], [110, 41, 0, 90])
    if kind == "rows":
        assert cache.table is not None
        cache.table[:, :5] = cache.table[:1, :5].clone()
    step = decoder_of(spattn.compile(text, backend="triton"), shape, 3)
    q = torch.stack(queries(shape, 3, [1] * 4))
    sinks = torch.linspace(-1, 1, 6)
    found, lse = step(q, cache, shared_keys=40, return_lse=True, sinks=sinks)
    want, want_lse = step(q, cache, return_lse=True, sinks=sinks)
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse, want_lse, atol=1e-5, rtol=1e-5)


def test_shared_keys_where_they_cannot_be() -> None:
    shape = Shape(batch=2)
    cache, requests = cache_of("rows", shape), Requests(shape)
    requests.append([cache], [20, 20])
    q = torch.randn(2, 2, 1, 16)
    with pytest.raises(UnsupportedError, match="tells requests apart"):
        decoder_of(spattn.compile("tail(3) & causal", backend="triton"), shape)(q, cache, shared_keys=8)


@pytest.mark.parametrize("size", [24, 48, 96])
@pytest.mark.parametrize("atom", ["blocks(t, size={})", "listed_blocks(t, size={})"])
def test_blocks_of_any_size_in_pages_of_64(atom: str, size: int) -> None:
    """A tile of a block may lie in two pages; lists may name blocks that are past the table, or past all numbers."""
    shape = Shape(batch=2, heads=1, tokens=256, page_size=64)
    cache, requests = cache_of("rows", shape), Requests(shape)
    requests.append([cache], [250, 130])
    text = f"causal & {atom.format(size)}"
    count = -(-256 // size)
    listed = torch.full((count, 5), -1, dtype=torch.int32)
    table = torch.zeros(count, count, dtype=torch.int64)
    for row in range(count):
        some = sorted({0, row // 2, row})
        listed[row, : 1 + len(some)] = torch.tensor([len(some), *some])
        table[row, some] = 1
    q = queries(shape, 2, [1, 2])
    step = decoder_of(spattn.compile(text, backend="triton"), shape, 2)
    tensor = table if atom.startswith("blocks") else listed
    found = step(packed(q), cache, ends_of([1, 2]), return_lse=True, t=tensor)
    check(found, expected(spattn.parse(text).syntax, requests, q, {"t": tensor}), requests.lens, shape.dtype)


def test_rows_before_the_first_request_stay_as_they_are() -> None:
    shape = Shape(batch=2)
    cache, requests = cache_of("dense", shape), Requests(shape)
    requests.append([cache], [9, 9])
    step = decoder_of(spattn.compile("causal", backend="triton"), shape)
    out = torch.full((8, 2, 8), 5.0)
    step(torch.randn(8, 2, 16), cache, torch.tensor([3, 4, 6], dtype=torch.int32), out=out)
    assert (out[:3] == 5).all()
    assert (out[6:] == 5).all()
    assert (out[3:6] != 5).all()


def test_more_rows_than_were_announced_are_no_numbers() -> None:
    shape = Shape(batch=2)
    cache, requests = cache_of("dense", shape), Requests(shape)
    requests.append([cache], [9, 9])
    step = decoder_of(spattn.compile("causal", backend="triton"), shape, max_new=2)
    out = step(torch.randn(4, 2, 16), cache, torch.tensor([0, 3, 4], dtype=torch.int32))
    assert out[:3].isnan().all()
    assert out[3].isfinite().all()
