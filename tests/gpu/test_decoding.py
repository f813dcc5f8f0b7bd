"""Decode steps on a GPU: long caches against float64, in CUDA graphs, and the same bits however pages lie."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import spattn
from spattn import serving
from tests.serving.caches import NAN, Requests, Shape, cache_of, ends_of, expected, ring_of

pytestmark = pytest.mark.gpu
PATTERNS = (
    "causal",
    "causal & (last(300) | sink(20))",
    "causal & (last(128) | strided(64))",
    "causal & (last(100) | columns([0:30, ::64]))",
    "causal & (last(64) | global([0, 700, 1500]))",
    "blockwise(64, local(1) | sink(1)) & causal",
    "chunk(512) & causal",
    "neighborhood([40, 50], [9, 9], causal=true)",
    "(heads([0:2]) & causal) | (causal & last(99))",
)
KINDS = "dense", "rows", "csr", "flashinfer HND"
DTYPES = torch.bfloat16, torch.float16, torch.float32


def decoder_of(attn: spattn.Attention, shape: Shape, group: int, **options: Any) -> serving.Decoder:
    sizes: dict[str, Any] = {
        "num_q_heads": shape.heads * group,
        "num_kv_heads": shape.heads,
        "head_dim": shape.dim,
        "v_head_dim": shape.v_dim,
        "max_batch": shape.batch,
        "max_kv_len": shape.tokens,
        "dtype": shape.dtype,
        "device": "cuda",
    }
    return attn.decoder(**{**sizes, **options})


def queries(shape: Shape, group: int, counts: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape.heads * group, m, shape.dim, generator=generator).to(shape.dtype).cuda() for m in counts]


def packed(q: list[Tensor]) -> Tensor:
    return torch.cat(q, 1).transpose(0, 1).contiguous()


def close(found: tuple[Tensor, Tensor], want: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> None:
    out = torch.cat([x for x, _ in want], 1).transpose(0, 1)
    lse = torch.cat([x for _, x in want], 1)
    tolerance = {torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float32: 2e-5}[dtype]
    torch.testing.assert_close(found[0].double().cpu(), out, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found[1].double().cpu(), lse, atol=max(tolerance / 4, 1e-4), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", PATTERNS)
def test_a_step_is_the_last_rows_of_a_call(text: str, kind: str) -> None:
    number = PATTERNS.index(text) + KINDS.index(kind)
    group, dim, dtype = (1, 4, 5, 7, 8)[number % 5], (64, 128)[number % 2], DTYPES[number % 3]
    shape = Shape(4, 2, dim, dim, 2000, (1, 16, 64)[number % 3], dtype)
    cache, requests = cache_of(kind, shape, device="cuda"), Requests(shape, device="cuda")
    requests.append([cache], [1990, 77, 1, 800])
    for counts in ([1, 1, 1, 1], [4, 2, 0, 3]):
        requests.append([cache], counts)
        q = queries(shape, group, counts)
        sinks = torch.linspace(-1, 1, 2 * group, device="cuda") if number % 2 else None
        attn = spattn.compile(text, backend="triton", tf32=False)
        step = decoder_of(attn, shape, group, max_new=max(counts))
        found = step(packed(q), cache, ends_of(counts, "cuda"), return_lse=True, sinks=sinks)
        want = expected(attn.pattern.syntax, requests, q, {}, None if sinks is None else sinks.cpu())
        close(found, want, dtype)


def test_chunks_of_a_prompt() -> None:
    shape = Shape(3, 2, 64, 64, 1500, 16, torch.bfloat16)
    for text in ("causal & (last(300) | sink(20))", "causal & (last(128) | strided(64))"):
        cache, requests = cache_of("rows", shape, device="cuda"), Requests(shape, device="cuda")
        requests.append([cache], [0, 700, 1300])
        attn = spattn.compile(text, backend="triton")
        step = decoder_of(attn, shape, 4, max_new=512)
        for counts in ([512, 1, 100], [300, 512, 1]):
            requests.append([cache], counts)
            q = queries(shape, 4, counts)
            found = step(packed(q), cache, ends_of(counts, "cuda"), return_lse=True)
            close(found, expected(attn.pattern.syntax, requests, q, {}), torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8(dtype: torch.dtype) -> None:
    shape, wide = Shape(2, 2, 128, 128, 900, 16, dtype), Shape(2, 2, 128, 128, 900, 16, torch.bfloat16)
    scale = torch.tensor([0.05, 0.2], device="cuda")
    cache = cache_of("rows", shape, device="cuda", k_scale=scale, v_scale=0.1)
    requests = Requests(Shape(2, 2, 128, 128, 900, 16, torch.float32), device="cuda")
    requests.append([cache], [899, 30])
    requests.k = (requests.k / scale[:, None, None]).to(dtype).float() * scale[:, None, None]
    requests.v = (requests.v / 0.1).to(dtype).float() * 0.1
    attn = spattn.compile("causal & last(500)", backend="triton")
    q = queries(wide, 4, [1, 1])
    found = decoder_of(attn, wide, 4)(packed(q), cache, ends_of([1, 1], "cuda"), return_lse=True)
    close(found, expected(attn.pattern.syntax, requests, q, {}), torch.bfloat16)


@pytest.mark.parametrize("kind", ["dense", "rows", "ring"])
def test_a_graph_of_append_and_step_serves_all_later_lengths(kind: str) -> None:
    text = "causal & (last(200) | sink(10))"
    shape = Shape(3, 2, 64, 64, 700, 16, torch.bfloat16)
    attn = spattn.compile(text, backend="triton")
    ring = ring_of(attn.pattern.live(), shape, 2, device="cuda")
    cache = ring if kind == "ring" else cache_of(kind, shape, device="cuda")
    requests = Requests(shape, device="cuda")
    requests.append([cache], [600, 31, 250])
    step, out = decoder_of(attn, shape, 4), torch.zeros(3, 8, 1, 64, dtype=torch.bfloat16, device="cuda")
    q, k, v = (torch.zeros(3, heads, 1, 64, dtype=torch.bfloat16, device="cuda") for heads in (8, 2, 2))

    def run() -> None:
        cache.append(k, v)
        step(q, cache, out=out)

    lens = cache.kv_lens.clone()
    run()  # compiles
    cache.kv_lens.copy_(lens)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    for i in range(40):
        new = queries(shape, 4, [1, 1, 1])
        q.copy_(torch.stack(new) + i)
        for b, n in enumerate(requests.lens):
            k[b, :, 0], v[b, :, 0] = requests.k[b, :, n], requests.v[b, :, n]
        requests.lens = [n + 1 for n in requests.lens]
        graph.replay()
        if i % 13 == 0:
            want = expected(attn.pattern.syntax, requests, list(q), {})
            torch.testing.assert_close(out.double().cpu(), torch.stack([x for x, _ in want]), atol=2e-2, rtol=2e-2)


def test_bits_depend_on_the_request_alone() -> None:
    """However pages lie, who else is in the batch, what dead slots hold, and how often it is asked."""
    text, one = "causal & (last(3000) | sink(64))", Shape(1, 8, 128, 128, 6000, 16, torch.bfloat16)
    attn = spattn.compile(text, backend="triton")
    truth = Requests(one, device="cuda")
    q = torch.randn(1, 32, 1, 128, generator=torch.Generator().manual_seed(1)).bfloat16().cuda()
    found = []
    for batch, seed, most in ((1, 0, 1), (9, 1, 16), (5, 2, 64)):
        shape = Shape(batch, 8, 128, 128, 6000, 16, torch.bfloat16)
        cache, requests = cache_of("rows", shape, seed=seed, device="cuda"), Requests(shape, seed, device="cuda")
        requests.k[batch - 1], requests.v[batch - 1] = truth.k[0], truth.v[0]
        requests.append([cache], [(b * 977) % 6000 for b in range(batch - 1)] + [5801])
        live = torch.as_tensor(attn.pattern.live().mask(5800))
        assert cache.table is not None
        for page in range(5800 // 16):  # what may go has gone
            if not live[page * 16 : page * 16 + 16].any():
                cache.keys[cache.table[batch - 1, page]] = NAN
                cache.table[batch - 1, page] = -7
        step = decoder_of(attn, shape, 4, max_batch=most)
        for _ in range(20):
            found.append(step(q.expand(batch, -1, -1, -1).contiguous(), cache)[batch - 1])
    assert found[0].isfinite().all()
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("text", ["causal", "causal & (last(700) | sink(20))", "causal & (last(64) | strided(64))"])
def test_keys_that_requests_share_are_read_once(text: str) -> None:
    shape = Shape(9, 2, 128, 128, 2500, 16, torch.bfloat16)
    cache, requests = cache_of("rows", shape, device="cuda"), Requests(shape, device="cuda")
    requests.k[:, :, :2000], requests.v[:, :, :2000] = requests.k[:1, :, :2000], requests.v[:1, :, :2000]
    requests.append([cache], [2400, 2001, 2100, 0, 2300, 2499, 2200, 2017, 2000])
    assert cache.table is not None
    cache.table[:, :125] = cache.table[:1, :125].clone()
    attn = spattn.compile(text, backend="triton")
    q = queries(shape, 4, [1] * 9)
    found = decoder_of(attn, shape, 4)(torch.stack(q), cache, shared_keys=2000)
    for b, (want, _) in enumerate(expected(attn.pattern.syntax, requests, q, {})):
        if requests.lens[b]:
            torch.testing.assert_close(found[b].double().cpu(), want, atol=2e-2, rtol=2e-2)


def test_many_programs_at_once_add_up_alike() -> None:
    """Shares of 64 requests whose programs come in any order, a thousand times: the counters hold, bit for bit."""
    shape = Shape(64, 8, 128, 128, 4096, 16, torch.bfloat16)
    cache, requests = cache_of("dense", shape, device="cuda"), Requests(shape, device="cuda")
    requests.append([cache], [1 + (b * 613) % 4095 for b in range(64)])
    step = decoder_of(spattn.compile("causal", backend="triton"), shape, 4)
    q = torch.stack(queries(shape, 4, [1] * 64))
    first, out = step(q, cache), torch.empty(64, 32, 1, 128, dtype=torch.bfloat16, device="cuda")
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(1000):
        wrong += (step(q, cache, out=out) != first).sum()
    assert int(wrong) == 0


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_nothing_waits_and_nothing_is_allocated() -> None:
    shape = Shape(4, 2, 64, 64, 500, 16, torch.bfloat16)
    cache, requests = cache_of("rows", shape, device="cuda"), Requests(shape, device="cuda")
    requests.append([cache], [400, 3, 77, 150])
    step = decoder_of(spattn.compile("causal & last(99)", backend="triton"), shape, 4)
    q = torch.stack(queries(shape, 4, [1] * 4))
    out = step(q, cache)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    try:
        torch.cuda.set_sync_debug_mode("error")
        step(q, cache, out=out)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
