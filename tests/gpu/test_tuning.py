"""Tiles measured by the GPU's clock: the same results, a record, nothing while a graph is captured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import spattn
from spattn.cache.store import Cache
from spattn.gpu import tile_records

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    made = Cache(tmp_path / "cache")
    monkeypatch.setattr("spattn.attend.default_cache", lambda: made)
    tile_records._known.clear()
    yield made
    tile_records._known.clear()


def records(cache: Cache) -> list[Path]:
    return [entry.path for entry in cache.entries() if entry.path.suffix == ".json"]


def test_tuning_changes_no_result(cache: Cache) -> None:
    q, k, v = (torch.randn(1, 4, 4096, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    attn = spattn.compile("last(100) | strided(64) & causal", backend="triton", tune=True)
    out, lse = attn(q, k, v, return_lse=True)
    wanted, wanted_lse = spattn.compile(str(attn.pattern), backend="triton")(q, k, v, return_lse=True)
    torch.testing.assert_close(out, wanted, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(lse, wanted_lse, atol=1e-4, rtol=1e-4)
    [path] = records(cache)
    found = cache.read_json(path.stem)
    assert found is not None
    assert 0 < found["microseconds"] < 1e4
    assert len(found["tiles"]) == 2
    shorter = [x[:, :, :3000] for x in (q, k, v)]
    attn(*shorter)
    assert records(cache) == [path]


def test_tuning_changes_no_gradient(cache: Cache) -> None:
    q, k, v = (torch.randn(1, 4, 4096, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    attn = spattn.compile("last(100) | strided(64) & causal", backend="triton", tune=True)
    plain = spattn.compile(str(attn.pattern), backend="triton")
    found, wanted = (torch.autograd.grad(call(q, k, v).float().square().sum(), (q, k, v)) for call in (attn, plain))
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=5e-2, rtol=5e-2)
    assert len(records(cache)) == 3  # attention, dq, dk and dv


def test_a_captured_call_measures_nothing(cache: Cache) -> None:
    attn = spattn.compile("last(77)", backend="triton", tune=True)
    plain = spattn.compile("last(77)", backend="triton")
    q, k, v = (torch.randn(1, 4, 1024, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    wanted = plain(q, k, v)  # compiles the kernels that are predicted best
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        out = attn(q, k, v)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, wanted)
    assert records(cache) == []
