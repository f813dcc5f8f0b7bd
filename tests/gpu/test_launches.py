"""What a launch owes a GPU program: the same bits, no waiting, any stream, graphs, tensors beyond 2^31 elements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from spattn import oracle
from spattn.frontend.parser import parse
from spattn.gpu.forward import attend
from spattn.gpu.launch import Options, Outputs
from tests.gpu.test_accuracy import PATTERNS, tensors
from tests.kernels import TRITON, Inputs, drawn, plans, requested

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]

NAMES = ("causal", "strided", "owners", "random", "documents", "table", "heads", "tokens")


def inputs(name: str, q_len: int = 500, kv_len: int = 700, seed: int = 0) -> Inputs:
    given = tensors(PATTERNS[name], kv_len, 2)
    on_device = {key: torch.as_tensor(value, device="cuda") for key, value in given.items()}
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device": "cuda", "tensors": on_device, "seed": seed}
    return drawn(q_len, kv_len, batch=2, heads=(4, 2), dims=(64, 64), **options)


def answered(plan: Any, request: Any) -> tuple[Any, Any]:
    outputs = Outputs.of(request)
    attend(plan, request, outputs, Options(TRITON))
    return outputs.out, outputs.lse


def call(name: str, given: Inputs) -> tuple[Any, Any]:
    plan, request = requested(PATTERNS[name], given)
    return answered(plan, request)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_fifty_times(name: str) -> None:
    given = inputs(name)
    out, lse = call(name, given)
    for _ in range(50):
        again, lse_again = call(name, given)
        assert torch.equal(out, again)
        assert torch.equal(lse, lse_again)


@pytest.fixture
def never_waits() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("never_waits")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("name", NAMES)
def test_a_second_call_does_not_wait_for_the_device(name: str) -> None:
    given = inputs(name)
    call(name, given)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    call(name, given)


@pytest.mark.parametrize("name", NAMES)
def test_streams_do_not_disturb_each_other(name: str) -> None:
    one, two = inputs(name), inputs(name, seed=1)
    wanted = call(name, one)[0], call(name, two)[0]
    torch.cuda.synchronize()
    streams = torch.cuda.Stream(), torch.cuda.Stream()
    for _ in range(5):
        found = []
        for stream, given in zip(streams, (one, two), strict=True):
            with torch.cuda.stream(stream):
                found.append(call(name, given)[0])
        torch.cuda.synchronize()
        assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_captures_a_call(name: str) -> None:
    given, other = inputs(name), inputs(name, seed=1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call(name, given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = call(name, given)
    for mine, theirs in zip((given.q, given.k, given.v), (other.q, other.k, other.v), strict=True):
        mine.copy_(theirs)
    graph.replay()
    torch.cuda.synchronize()
    wanted, wanted_lse = call(name, given)
    assert torch.equal(out, wanted)
    assert torch.equal(lse, wanted_lse)


def test_a_new_length_compiles_nothing() -> None:
    """Lengths between which the tiles are the same: kernels come from Triton's table."""
    call("window", inputs("window", 1000, 1000))
    plan, _ = requested(PATTERNS["window"], inputs("window", 1000, 1000))
    before = compiled_kernels(plan)
    for length in (1001, 1024, 1111, 1500):
        call("window", inputs("window", length, length))
    assert compiled_kernels(plan) == before


def compiled_kernels(plan: Any) -> int:
    from spattn.gpu.load import load

    source = plan.module_of(())
    namespace = load(plan.publish(source.text), source.text)
    return sum(len(entry[0]) for one in source.passes for entry in namespace[one.name].device_caches.values())


@pytest.mark.timeout(200)
def test_tensors_of_more_than_2_to_the_31_elements() -> None:
    """Three entries of eight heads of 2^20 tokens: q, k, v and out have 3.2e9 elements each."""
    free, _ = torch.cuda.mem_get_info()
    if free < 60 << 30:
        pytest.skip("needs 60 GiB of free memory on the GPU")
    shape, rows, window = (3, 8, 1 << 20, 128), 512, 256
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_(generator=generator) for _ in range(3))
    assert q.numel() > 1 << 31
    pattern = f"last({window})"
    _, request = requested(pattern, Inputs(q, k, v))
    out, lse = answered(plans(pattern), request)
    for b, h in ((0, 0), (1, 3), (2, 7)):
        pair = (slice(b, b + 1), slice(h, h + 1))
        for queries, keys in ((slice(0, rows), slice(0, rows)), (slice(-rows, None), slice(-rows - window, None))):
            given = q[*pair, queries], k[*pair, keys], v[*pair, keys]
            mask = oracle.mask(parse(pattern), rows, given[1].shape[2])
            wanted, wanted_lse = oracle.attention(*given, mask)
            torch.testing.assert_close(out[*pair, queries].double(), wanted, atol=2e-2, rtol=2e-2)
            torch.testing.assert_close(lse[*pair, queries].double(), wanted_lse, atol=1e-4, rtol=1e-5)
