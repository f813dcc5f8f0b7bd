"""On a GPU: answers follow the tensors of a pattern, eager and in graphs that are replayed, forward and backward."""

from __future__ import annotations

from functools import partial

import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402  after Triton is known to be here

import spattn  # noqa: E402
from tests.rewritten import CASES, WAYS, Case, answers, by_copy, inputs  # noqa: E402

pytestmark = pytest.mark.gpu


@triton.jit
def _copied(source, target, count, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + place, tl.load(source + place, mask=place < count), mask=place < count)


def by_kernel(x: torch.Tensor, new: torch.Tensor) -> None:
    """Memory that a kernel writes to, of which torch knows nothing."""
    source, target = (one.view(torch.uint8) for one in (new.contiguous(), x))
    _copied[(triton.cdiv(target.numel(), 256),)](source, target, target.numel(), BLOCK=256)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_eager_calls_follow(name: str, backend: str) -> None:
    case, given = Case.of(name), inputs("cuda", torch.bfloat16)
    attn = spattn.compile(case.pattern, backend=backend)
    old, new = (answers(attn, given, x=case.tensor(seed, "cuda")) for seed in (1, 2))
    assert not torch.equal(old[0], new[0])
    x = case.tensor(1, "cuda")
    for write in (*WAYS, by_kernel):
        for _ in range(2):  # as it is looked at, and as it is launched again
            write(x, case.tensor(2, "cuda"))
            found = answers(attn, given, partial(write, x, case.tensor(1, "cuda")), x=x)
            assert all(map(torch.equal, found, new)), write.__name__


@pytest.mark.parametrize("write", [by_copy, by_kernel])
@pytest.mark.parametrize("name", CASES)
def test_graphs_follow(name: str, write) -> None:
    case, given = Case.of(name), inputs("cuda", torch.bfloat16)
    attn = spattn.compile(case.pattern, backend="triton")
    want = [answers(attn, given, x=case.tensor(seed, "cuda")) for seed in (1, 2)]
    x = case.tensor(1, "cuda")
    graph, found = captured(lambda: answers(attn, given, x=x))
    for seed in (2, 1, 2):
        write(x, case.tensor(seed, "cuda"))
        graph.replay()
        assert all(map(torch.equal, found, want[seed - 1]))


@pytest.mark.parametrize("name", CASES)
def test_what_is_prepared_inside_a_graph_follows_and_before_it_stays(name: str) -> None:
    case, given = Case.of(name), inputs("cuda", torch.bfloat16)
    attn = spattn.compile(case.pattern, backend="triton")
    want = [answers(attn, given, x=case.tensor(seed, "cuda")) for seed in (1, 2)]
    x = case.tensor(1, "cuda")

    def layers() -> list[torch.Tensor]:
        prepared = attn.prepare(x=x)
        return [*answers(attn, given, prepared=prepared), *answers(attn, given, prepared=prepared)]

    inside, found = captured(layers)
    kept = attn.prepare(x=x)
    before, same = captured(lambda: answers(attn, given, prepared=kept))
    by_kernel(x, case.tensor(2, "cuda"))
    inside.replay()
    before.replay()
    assert all(map(torch.equal, found, want[1] * 2))
    assert all(map(torch.equal, same, want[0]))


def test_what_a_graph_prepares_is_not_for_others() -> None:
    case, given = Case.of("documents"), inputs("cuda", torch.bfloat16)
    attn, x, made = spattn.compile(case.pattern), case.tensor(1, "cuda"), []

    def layer() -> torch.Tensor:
        made.append(attn.prepare(x=x))
        return attn(*given, prepared=made[-1])

    captured(layer)
    with pytest.raises(spattn.SpattnError, match="prepared while a graph was captured"):
        attn(*given, prepared=made[-1])


def captured(call) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]:
    """A graph of a call, after two that warm it up; and what it fills."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()
    return graph, found
