"""torch around the kernels on a GPU: compiled, captured, checkpointed, cast, repeated; nothing waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import spattn
from spattn.call.positions import USUAL
from spattn.gpu.load import load
from spattn.runtime.operators import BACKWARD, FORWARD
from tests.gpu.test_accuracy import PATTERNS
from tests.gpu.test_accuracy import tensors as arrays

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
    # where a step is repeated on another stream than the one that it was warmed up on
    pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream"),
]

NAMES = ("causal", "strided", "owners", "random", "documents", "table", "heads", "tokens")


def tensors(name: str, kv_len: int) -> dict[str, Tensor]:
    return {key: torch.as_tensor(x, device="cuda") for key, x in arrays(PATTERNS[name], kv_len, 2).items()}


def drawn(q_len: int = 500, kv_len: int = 700, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    generator = torch.Generator("cuda").manual_seed(seed)
    shapes = ((4, q_len), (2, kv_len), (2, kv_len))
    return [torch.randn(2, *shape, 64, generator=generator, device="cuda").to(dtype) for shape in shapes]


def derived(call: Any, given: list[Tensor], seed: int = 1) -> tuple[Tensor, ...]:
    """What `call` answers, and the gradients of q, k and v for normal gradients of that."""
    inputs = [x.detach().requires_grad_() for x in given]
    found = call(*inputs)
    results = found if isinstance(found, tuple) else (found,)
    generator = torch.Generator("cuda").manual_seed(seed)
    upstream = [torch.randn(x.shape, generator=generator, device="cuda").to(x.dtype) for x in results]
    torch.autograd.backward(results, upstream)
    return *(x.detach() for x in results), *(x.grad for x in inputs if x.grad is not None)


def both(name: str, kv_len: int = 700) -> Any:
    """(out, lse) of a pattern."""
    attn, given = spattn.compile(PATTERNS[name], backend="triton"), tensors(name, kv_len)
    return lambda *x: attn(*x, return_lse=True, **given)


def assert_same(mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    assert len(mine) == len(theirs)
    assert all(map(torch.equal, mine, theirs))


@pytest.mark.parametrize("name", NAMES)
def test_later_calls_are_those_of_a_new_function(name: str) -> None:
    """The first call of a kind is looked at, the second compiles what it needs, later ones exchange addresses."""
    call = both(name)
    for seed in range(4):
        assert_same(derived(call, drawn(seed=seed)), derived(both(name), drawn(seed=seed)))


@pytest.mark.parametrize("name", ["causal", "documents", "heads"])
def test_later_calls_see_strides_alignment_and_what_is_asked_for(name: str) -> None:
    call = both(name)
    wanted = derived(call, drawn())
    for _ in range(3):
        spread = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in drawn()]
        assert_same(derived(call, spread), wanted)
        shifted = [torch.empty(x.numel() + 1, dtype=x.dtype, device="cuda")[1:].view(x.shape).copy_(x) for x in drawn()]
        for mine, theirs in zip(derived(call, shifted), wanted, strict=True):
            torch.testing.assert_close(mine, theirs, atol=2e-2, rtol=2e-2)
        assert_same(derived(call, drawn()), wanted)
        q, k, v = drawn()
        k.requires_grad_()
        out, _ = call(q, k, v)
        out.sum().backward()
        assert (q.grad, v.grad) == (None, None)
        assert_same(derived(call, drawn()), wanted)


def test_later_calls_see_changed_tensors() -> None:
    attn, ids = spattn.compile("documents(ids) & causal", backend="triton"), torch.arange(700, device="cuda") // 100

    def call(*x: Tensor) -> Any:
        return attn(*x, ids=ids)

    for _ in range(3):
        derived(call, drawn())
    ids.floor_divide_(2)
    for _ in range(3):
        mine = derived(call, drawn())
    fresh = spattn.compile("documents(ids) & causal", backend="triton")
    assert_same(mine, derived(lambda *x: fresh(*x, ids=ids.clone()), drawn()))


@pytest.mark.parametrize("name", ["causal", "strided", "owners", "documents", "heads"])
def test_the_same_bits_two_hundred_times(name: str) -> None:
    call, given = both(name), drawn()
    first = derived(call, given)
    for _ in range(200):
        assert_same(derived(call, given), first)


@pytest.mark.filterwarnings("ignore:Deterministic behavior")
@pytest.mark.parametrize("name", NAMES)
def test_torch_s_deterministic_mode_changes_nothing(name: str) -> None:
    usual = derived(both(name), drawn())
    torch.use_deterministic_algorithms(True)
    try:
        mine = derived(both(name), drawn())
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same(mine, usual)


@pytest.mark.parametrize("name", ["causal", "strided", "documents", "tokens"])
def test_torch_finds_no_fault_with_the_operators(name: str) -> None:
    attn, given = spattn.compile(PATTERNS[name], backend="triton"), tensors(name, 130)
    rest = list(given.values()), attn._plan.text, None, *USUAL, ""
    plain = drawn(100, 130)
    torch.library.opcheck(FORWARD, (*(x.detach().requires_grad_() for x in plain), *rest))
    out, lse = FORWARD(*plain, *rest)
    torch.library.opcheck(BACKWARD, (out, torch.ones_like(lse), *plain, out, lse, *rest, [True] * 3))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_one_compilation_serves_every_length(backend: str) -> None:
    torch._dynamo.reset()
    attn, counter = spattn.compile("documents(ids) & causal", backend="triton"), CompileCounterWithBackend(backend)

    def call(q: Tensor, k: Tensor, v: Tensor, ids: Tensor) -> Any:
        return attn(q * 1, k, v, ids=ids, return_lse=True)

    quick = torch.compile(call, fullgraph=True, backend=counter)
    for length in (300, 513, 1024, 777):
        ids = torch.arange(length, device="cuda") // 100
        torch._dynamo.mark_dynamic(ids, 0)

        def traced(*given: Tensor, ids: Tensor = ids) -> Any:
            for one in given:
                torch._dynamo.mark_dynamic(one, 2)
            return quick(*given, ids)

        wanted = derived(lambda *given, ids=ids: call(*given, ids), drawn(length, length))
        for _ in range(2):
            assert_same(derived(traced, drawn(length, length)), wanted)
    assert counter.frame_count == 1


def test_new_lengths_compile_no_kernel() -> None:
    """Lengths up to one power of two, so that the tiles are the same."""
    attn = spattn.compile("last(256)", backend="triton")
    derived(attn, drawn(1100, 1100))
    before = compiled_kernels(attn)
    for length in (1101, 1536, 1999, 2048):
        derived(attn, drawn(length, length))
    assert compiled_kernels(attn) == before


def compiled_kernels(attn: spattn.Attention) -> int:
    """Of the forward and the backward, by Triton's own tables."""
    sources = attn.module_of(()), attn.backward_module_of(())
    namespaces = [load(attn.publish(source.text), source.text) for source in sources]
    kernels = [one for names in namespaces for one in names.values() if hasattr(one, "device_caches")]
    return sum(len(entry[0]) for one in kernels for entry in one.device_caches.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_captures_a_step_of_training(name: str) -> None:
    call, other = both(name), drawn(seed=1)
    inputs = [x.requires_grad_() for x in drawn()]

    def step() -> tuple[Tensor, ...]:
        out, lse = call(*inputs)
        return out, *torch.autograd.grad((out, lse), inputs, (torch.ones_like(out), torch.ones_like(lse)))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    with torch.no_grad():
        for mine, theirs in zip(inputs, other, strict=True):
            mine.copy_(theirs)
    graph.replay()
    torch.cuda.synchronize()
    assert_same(tuple(x.clone() for x in found), step())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["strided", "documents", "heads"])
def test_checkpoints_compute_it_again(name: str, reentrant: bool) -> None:
    call = both(name)
    again = derived(lambda *x: checkpoint(call, *x, use_reentrant=reentrant), drawn())
    assert_same(again, derived(call, drawn()))


def test_autocast_is_as_torch_s_own_attention_has_it() -> None:
    attn, given = spattn.compile("last(100)", backend="triton"), drawn(dtype=torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        out, *gradients = derived(attn, given)
    plain = attn(*(x.bfloat16() for x in given))
    assert torch.equal(out, plain)
    assert [x.dtype for x in gradients] == [torch.float32] * 3
    traced = torch.compile(attn, fullgraph=True, backend="aot_eager")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert torch.equal(traced(*given), plain)


@pytest.fixture
def never_waits() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("never_waits")
@pytest.mark.parametrize("traced", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_does_not_wait(name: str, traced: bool) -> None:
    torch._dynamo.reset()
    call = both(name)
    call = torch.compile(call, fullgraph=True, backend="aot_eager") if traced else call
    inputs = [x.requires_grad_() for x in drawn()]

    def step() -> None:
        out, lse = call(*inputs)
        torch.autograd.backward([out, lse], [torch.ones_like(out), torch.ones_like(lse)])

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(3):
        step()


def test_vmap_and_grad() -> None:
    attn = spattn.compile("last(100)", backend="triton")
    q, k, v = (torch.stack([x, x.flip(0)]) for x in drawn())
    one_by_one = torch.stack([attn(*x) for x in zip(q, k, v, strict=True)])
    torch.testing.assert_close(torch.func.vmap(attn)(q, k, v), one_by_one, atol=2e-2, rtol=2e-2)
    mine = torch.func.grad(lambda *x: attn(*x).float().sum(), argnums=(0, 1, 2))(q[0], k[0], v[0])
    inputs = [x[0].detach().requires_grad_() for x in (q, k, v)]
    assert_same(mine, torch.autograd.grad(attn(*inputs).float().sum(), inputs))
