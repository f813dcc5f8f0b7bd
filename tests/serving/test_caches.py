"""Where tokens lie: what is appended is read again, and nothing else is; rings hold whatever is live."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spattn
from spattn import serving
from spattn.errors import ArgumentError, NotDecodableError, UnsupportedError
from spattn.frontend.syntax import Intersection
from spattn.relation.rings import progressions
from tests.serving.caches import KINDS, Requests, Shape, cache_of, ends_of, ring_of, shapes
from tests.strategies import patterns

LIVE = spattn.parse("causal & (last(7) | columns([0:3, ::5, 11]))").live()
RINGS = (
    "last(1)",
    "last(6)",
    "causal & (last(7) | sink(3))",
    "last(3, dilation=4)",
    "chunk(8) & causal",
    "causal & (last(5) | columns([1::6]))",
    "causal & (last(5) | columns([0:3, ::5, 11]))",
    "fixed(8, 2) & causal",
    "causal & (last(4) | where(k % 5 != 1 and k % 3 != 0))",
    "causal & (last(3) | columns([2:9:3, 8, 20:31:2]))",
)
STEPS = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=8)


def check_read(cache: serving.Storage, requests: Requests) -> None:
    """What is held is what was appended, and nothing is read beside it."""
    for b, n in enumerate(requests.lens):
        held = cache.held(b)
        keys, values = cache.read(b, 0, n)
        there = torch.zeros(n, dtype=torch.bool)
        there[held] = True
        for mine, stored in ((keys, requests.k), (values, requests.v)):
            assert torch.equal(mine[there], stored[b, :, :n].transpose(0, 1)[there])
            assert mine[~there].isnan().all()


@settings(max_examples=60)
@given(st.sampled_from(KINDS), shapes(), STEPS, st.integers(0, 99))
def test_what_is_appended_is_read_again(kind: str, shape: Shape, steps: list[list[int]], seed: int) -> None:
    cache, requests = cache_of(kind, shape, seed), Requests(shape)
    for new in steps:
        requests.append([cache], new[: shape.batch])
        assert cache.kv_lens.tolist() == requests.lens
        check_read(cache, requests)
        assert [len(cache.held(b)) for b in range(shape.batch)] == requests.lens
    requests.append([cache], [2] * shape.batch, packed=False)
    check_read(cache, requests)


@settings(max_examples=60)
@given(st.sampled_from(RINGS), shapes(), STEPS, st.integers(0, 3))
def test_a_ring_holds_what_is_live_after_each_call(
    text: str, shape: Shape, steps: list[list[int]], rollback: int
) -> None:
    live = spattn.parse(text).live()
    ring, requests = ring_of(live, shape, 3, rollback), Requests(shape)
    longest = [0] * shape.batch
    for i, new in enumerate([[shape.tokens - 28] * 3, *steps]):
        before = requests.lens
        requests.append([ring], new[: shape.batch])
        check_read(ring, requests)
        for b, n in enumerate(requests.lens):
            needed = (
                {*np.flatnonzero(live.mask(before[b])), *range(before[b], n)} if i else np.flatnonzero(live.mask(n))
            )
            assert {*needed} <= {*ring.held(b).tolist()}
        longest = [max(pair) for pair in zip(longest, requests.lens, strict=True)]
        requests.lens = [min(n, max(most - rollback, 0)) for n, most in zip(requests.lens, longest, strict=True)]
        ring.kv_lens.copy_(torch.tensor(requests.lens))
        check_read(ring, requests)


@settings(max_examples=80)
@given(patterns(depth=2, guards=False), st.integers(1, 4), st.integers(1, 90))
def test_rings_of_drawn_patterns_hold_what_is_live(node: Any, max_new: int, n: int) -> None:
    try:
        live = spattn.parse(str(Intersection((node, spattn.parse("causal").syntax)))).live()
        ring = serving.Ring.allocate(
            live, batch=1, num_kv_heads=1, head_dim=1, max_kv_len=200, max_new=max_new, device="cpu"
        )
    except (NotDecodableError, UnsupportedError):
        return
    held = set()
    for one in progressions(live.kept):
        held |= {*range(one.first, 200 if one.stop is None else min(one.stop, 200), one.step)}
    assert {*np.flatnonzero(live.kept_mask(200))} <= held
    ring.kv_lens.fill_(n + max_new)
    assert {*np.flatnonzero(live.mask(n))} <= {*ring.held(0).tolist()}
    positions = ring.held(0)
    _, slots = ring.places(0, positions)
    assert len(slots.unique()) == len(slots)
    assert int(slots.max()) < ring.keys.shape[1]


def test_the_table_of_kept_keys_says_where_they_lie() -> None:
    ring = ring_of(LIVE, Shape(), 2)
    base, window = ring.window_base, ring.window
    assert (base, window) == (3 + 1 + 8, 6 + 2)
    for position in range(40):
        slot = base + position % window
        for step, residue, first, count, start in reversed(ring.kept.tolist()):
            assert residue == first % step
            if position >= first and position % step == residue and (position - first) // step < count:
                slot = start + (position - first) // step
        assert ring.places(1, torch.tensor([position])) == (torch.tensor([1]), torch.tensor([slot]))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_scaled_and_saturates(dtype: torch.dtype) -> None:
    scales = {"k_scale": 0.5, "v_scale": torch.tensor([2.0, 0.25])}
    cache = cache_of("rows", Shape(dtype=dtype), **scales)
    k, v = torch.randn(2, 2, 3, 16), torch.randn(2, 2, 3, 8)
    k[0, 0, 0, 0], v[0, 0, 0, 0] = 1e6, -1e6
    cache.append(k, v)
    keys, values = cache.read(0, 0, 3)
    most = torch.finfo(dtype).max
    assert (keys[0, 0, 0].item(), values[0, 0, 0].item()) == (most, -most)
    assert torch.equal(keys[1:].float(), (k[0, :, 1:] / 0.5).to(dtype).float().transpose(0, 1))
    scale = torch.tensor([2.0, 0.25])[:, None, None]
    assert torch.equal(values[1:].float(), (v[0, :, 1:] / scale).to(dtype).float().transpose(0, 1))


def test_a_token_without_a_slot_is_an_error_and_nothing_is_written() -> None:
    for kind in KINDS:
        shape = Shape(tokens=8)
        cache, requests = cache_of(kind, shape), Requests(Shape(tokens=9))
        requests.append([cache], [8, 3])
        before = cache.keys.clone()
        with pytest.raises(ArgumentError, match="request 0 has no slot for position 8"):
            requests.append([cache], [1, 1])
        assert torch.equal(before.nan_to_num(9), cache.keys.nan_to_num(9))
        assert cache.kv_lens.tolist() == [8, 3]


def test_a_dropped_page_is_not_held() -> None:
    cache, requests = cache_of("rows", Shape()), Requests(Shape())
    requests.append([cache], [20, 3])
    assert cache.table is not None
    cache.table[0, 1] = -1
    cache.table[0, 3] = 1 << 20
    assert cache.held(0).tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    check_read(cache, requests)
    cache.kv_lens.fill_(6)
    with pytest.raises(ArgumentError, match="no slot"):
        cache.append(torch.zeros(1, 2, 16), torch.zeros(1, 2, 8), ends_of([1, 0]))


def test_lengths_follow_from_last_pages() -> None:
    k = torch.zeros(9, 4, 2, 16)
    indptr, indices = torch.tensor([0, 3, 3, 4]).int(), torch.tensor([5, 2, 7, 0]).int()
    cache = serving.from_flashinfer(torch.stack([k, k], 1), indptr, indices, torch.tensor([2, 0, 4]).int())
    assert cache.kv_lens.tolist() == [10, 0, 4]


def test_lengths_as_one_number() -> None:
    k = torch.randn(3, 12, 2, 16)
    cache = serving.from_flash_attention(k, k, 7)
    assert cache.kv_lens.tolist() == [7, 7, 7]
    assert torch.equal(cache.read(1, 0, 7)[0], k[1, :7])
    table = torch.tensor([[2, 0]]).int()
    paged = serving.from_flash_attention(k, k, torch.tensor([20]).int(), block_table=table)
    assert torch.equal(paged.read(0, 0, 20)[0], torch.cat([k[2], k[0]])[:20])


K, LENS, TABLE = torch.zeros(2, 2, 8, 16), torch.zeros(2, dtype=torch.int32), torch.zeros(2, 3, dtype=torch.int32)
REFUSED: list[tuple[Any, str]] = [
    (lambda: serving.Dense(K[0], K[0], LENS), "not .batch, num_kv_heads, capacity, head_dim."),
    (lambda: serving.Dense(K.mT, K.mT, LENS), "last dimension is dense"),
    (lambda: serving.Dense(K, K.half(), LENS), "one dtype"),
    (lambda: serving.Dense(K.int(), K.int(), LENS), "a cache holds floats"),
    (lambda: serving.Dense(K, K[:, :1], LENS), "differ in more than the width"),
    (lambda: serving.Dense(K, K, LENS.long()), "kv_lens is torch.int64"),
    (lambda: serving.Dense(K, K, LENS[:1]), "kv_lens has 1 requests, and k 2"),
    (lambda: serving.Dense(K, K, LENS, k_scale=torch.ones(3)), "k_scale is torch.float32 .3."),
    (lambda: serving.Paged(K, K, TABLE[:1], LENS), "page_table has 1 rows"),
    (lambda: serving.Paged(K, K, TABLE, LENS, "NDH"), "not 'NDH'"),  # type: ignore[arg-type]
    (lambda: serving.Paged(K[:, :0], K[:, :0], TABLE, LENS), "one slot at least"),
    (lambda: serving.Paged.from_csr(K, K, LENS, LENS), "one of kv_lens and last_page_len"),
    (lambda: serving.Paged.from_csr(K, K, LENS, LENS, LENS), "kv_lens has 2 requests, and indptr 1"),
    (lambda: serving.from_flash_attention(K, K, LENS, cache_leftpad=LENS), "cache_leftpad"),
    (lambda: serving.from_flash_attention(K, K, LENS, page_table=TABLE, cache_batch_idx=LENS), "where requests lie"),
    (lambda: serving.from_flashinfer(K, LENS, LENS), "of five dimensions"),
    (lambda: serving.Ring(K, K, LENS, LIVE), "every 5th key from 0 on stays for ever, and max_kv_len"),
    (lambda: serving.Ring(K, K, LENS, LIVE, max_kv_len=40), "has 8 slots, and needs 19: 12 for keys"),
    (
        lambda: serving.Ring(K, K, LENS, spattn.parse("causal").live()),
        "saves nothing, every key stays .* query 1048576",
    ),
    (lambda: serving.Ring(K, K, LENS, spattn.parse("causal & columns([5:])").live()), "every key from 5 on"),
    (lambda: serving.Ring(K, K, LENS, spattn.parse("causal & where(q <= 2 * k)").live()), "no ring holds"),
    (lambda: serving.Dense(K, K, LENS).append(K[:1], K[:1]), "k_new has shape .*, not .2, 2, new, 16."),
    (lambda: serving.Dense(K, K, LENS).append(K[0], K[0], ends_of([1, 1])), "not .tokens, 2, 16."),
    (
        lambda: serving.Dense(K, K, LENS).append(K.half(), K.half()),
        "k_new is torch.float16 and the cache torch.float32",
    ),
    (lambda: serving.Dense(K, K, LENS).append(K, K[:, :, :1]), "8 new keys and 1 values"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises((ArgumentError, UnsupportedError), match=message):
        make()


def test_a_ring_without_end_needs_no_length() -> None:
    ring = serving.Ring(K, K, LENS, spattn.parse("causal & (last(5) | sink(3))").live())
    assert (ring.window_base, ring.window, ring.max_new, ring.capacity) == (3, 5, 1, 1 << 30)
