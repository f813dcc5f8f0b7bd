"""Caches on a GPU: what the kernel appends is what torch appends on a CPU, in a CUDA graph too."""

from __future__ import annotations

import pytest
import torch

import spattn
from spattn import serving
from tests.serving.caches import KINDS, Requests, Shape, cache_of, ends_of, ring_of

pytestmark = pytest.mark.gpu
RING = "causal & (last(5) | columns([0:3, ::5, 11]))"
DTYPES = torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2


def made(kind: str, shape: Shape, device: str) -> serving.Storage:
    if kind == "ring":
        return ring_of(spattn.parse(RING).live(), shape, 2, device=device)
    return cache_of(kind, shape, device=device, k_scale=0.5)


def same(one: serving.Storage, other: serving.Storage) -> bool:
    """Are the same slots written, with the same numbers?"""
    return all(
        torch.equal(mine.float().nan_to_num(999), theirs.float().cpu().nan_to_num(999))
        for mine, theirs in ((one.keys, other.keys), (one.values, other.values), (one.kv_lens, other.kv_lens))
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [*KINDS, "ring"])
def test_the_kernel_writes_what_torch_writes(kind: str, dtype: torch.dtype) -> None:
    shape = Shape(batch=3, heads=3, dtype=dtype)
    one, other = made(kind, shape, "cpu"), made(kind, shape, "cuda")
    requests, twins = Requests(shape), Requests(shape, device="cuda")
    for counts in ([0, 9, 3], [12, 0, 1], [2, 2, 2]):
        requests.append([one], counts)
        twins.append([other], counts)
        assert same(one, other)
    requests.append([one], [1, 1, 1], packed=False)
    twins.append([other], [1, 1, 1], packed=False)
    assert same(one, other)


@pytest.mark.parametrize("kind", ["dense", "csr", "ring"])
def test_a_graph_appends_at_each_replay(kind: str) -> None:
    shape = Shape()
    one, other = made(kind, shape, "cpu"), made(kind, shape, "cuda")
    k, v = torch.randn(4, 2, 16, device="cuda"), torch.randn(4, 2, 8, device="cuda")
    ends = ends_of([1, 2], "cuda")
    other.append(k, v, ends)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        other.append(k, v, ends)
    one.append(k.cpu(), v.cpu(), ends.cpu())
    for counts in ([1, 2], [0, 4], [3, 0]):
        ends.copy_(ends_of(counts))
        k.normal_()
        v.normal_()
        graph.replay()
        one.append(k.cpu()[: sum(counts)], v.cpu()[: sum(counts)], ends_of(counts))
        assert same(one, other)
