"""Calls that torch compiles and exports: one graph, for every length, and the same answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import spattn
from tests.runtime.calls import PATTERNS, derived, drawn, tensors

CPP = shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").is_file()


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    torch._dynamo.reset()


def compiled(function: Any, **options: Any) -> Any:
    return torch.compile(function, fullgraph=True, **{"backend": "aot_eager", **options})


def assert_alike(mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_compiled_call_answers_as_an_eager_one(name: str) -> None:
    attn, given = spattn.compile(PATTERNS[name]), tensors(name)

    def call(*x: Tensor) -> Any:
        return attn(*x, return_lse=True, **given)

    assert_alike(derived(compiled(call), drawn()), derived(call, drawn()))


def test_one_compilation_serves_every_length() -> None:
    attn, counter = spattn.compile("documents(ids) & causal"), CompileCounterWithBackend("aot_eager")

    def call(q: Tensor, k: Tensor, v: Tensor, ids: Tensor) -> Any:
        return attn(q, k, v, ids=ids)

    quick = compiled(call, backend=counter)
    for length in (20, 33, 64, 47):
        given = [x.requires_grad_() for x in drawn(length, length)]
        ids = torch.arange(length) // 9
        for x in given:
            torch._dynamo.mark_dynamic(x, 2)
        torch._dynamo.mark_dynamic(ids, 0)
        out = quick(*given, ids)
        torch.testing.assert_close(out, call(*given, ids))
        out.sum().backward()
    assert counter.frame_count == 1


def test_an_offset_may_change_without_compilation() -> None:
    attn, counter = spattn.compile("last(6)"), CompileCounterWithBackend("aot_eager")
    quick = compiled(lambda q, k, v, at: attn(q, k, v, q_offset=at), backend=counter, dynamic=True)
    for at in (3, 5, -2):
        torch.testing.assert_close(quick(*drawn(), at), attn(*drawn(), q_offset=at))
    assert counter.frame_count == 1


@pytest.mark.skipif(not CPP, reason="needs a C++ compiler and Python's headers")
def test_inductor_generates_around_it() -> None:
    attn = spattn.compile("last(6) | columns([0])")

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = attn(q * 2, k + 1, v.sin())
        return out.square()

    assert_alike(derived(compiled(call, backend="inductor", dynamic=True), drawn()), derived(call, drawn()))


def test_the_function_and_a_module_are_compiled_whole() -> None:
    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = spattn.compile("last(6) & columns([0, 7])")

        def forward(self, *given: Tensor) -> Tensor:
            out: Tensor = self.attention(*given)
            return out

    def call(*given: Tensor) -> Tensor:
        out: Tensor = spattn.attention(*given, "last(6) & columns([0, c])", c=7)
        return out

    wanted = call(*drawn())
    torch.testing.assert_close(compiled(call)(*drawn()), wanted)
    torch.testing.assert_close(compiled(Module())(*drawn()), wanted)


def test_other_calls_cause_no_compilation() -> None:
    attn, counter = spattn.compile("last(6)"), CompileCounterWithBackend("aot_eager")
    quick = compiled(lambda *x: attn(*x) + spattn.attention(*x, "last(7)"), backend=counter)
    for count in (8, 9):
        quick(*drawn())
        attn(*drawn(count, count))
        spattn.attention(*drawn(), f"last({count})")
    assert counter.frame_count == 1


def test_what_does_not_fit_is_said_when_it_is_traced() -> None:
    q, k, v = drawn()
    with pytest.raises(RuntimeError, match="k and v differ in heads or length"):
        compiled(spattn.compile("last(6)"))(q, k[:, :1], v)


MADE_BEFORE = """
import sys, spattn
attn = spattn.compile("last(6)")
assert "torch" not in sys.modules
import torch
given = [torch.ones(1, 2, 9, 16)] * 3
assert torch.compile(attn, fullgraph=True, backend="aot_eager")(*given).shape == (1, 2, 9, 16)
"""


def test_what_was_made_before_torch_is_compiled_too() -> None:
    subprocess.run([sys.executable, "-c", MADE_BEFORE], check=True, timeout=120)


def test_lists_become_tensors() -> None:
    attn = spattn.compile("last(6) | columns([t])")
    torch.testing.assert_close(compiled(lambda *x: attn(*x, t=[0, 7]))(*drawn()), attn(*drawn(), t=[0, 7]))


def test_autocast_is_as_torch_s_own_attention_has_it() -> None:
    attn = spattn.compile("last(6)")
    cast = [x.bfloat16() for x in drawn()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.nn.functional.scaled_dot_product_attention(*drawn(17, 17), enable_gqa=True).dtype == torch.bfloat16
        out, lse = attn(*drawn(), return_lse=True)
        traced = compiled(attn)(*drawn())
        kept = attn(*drawn(dtype=torch.float64))
    assert torch.equal(out, attn(*cast))
    assert torch.equal(traced, out)
    assert lse.dtype == torch.float32
    assert kept.dtype == torch.float64
    *_, dq, _, _ = derived(compiled(within_autocast), drawn())
    assert dq.dtype == torch.float32


def within_autocast(*given: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out: Tensor = spattn.attention(*given, "last(6)")
        return out


class Exported(torch.nn.Module):
    """One that is given a tensor beside q, k and v."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ids: Tensor) -> Any:
        return spattn.attention(q, k, v, "documents(ids) & last(9)", ids=ids, return_lse=True)


LOADS = """
import sys, torch, spattn.operators
program, (given, wanted) = torch.export.load(sys.argv[1]), torch.load(sys.argv[2])
for one, other in zip(program.module()(*given), wanted, strict=True):
    assert torch.equal(one, other)
"""


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_runs_in_another_process(strict: bool, tmp_path: Path) -> None:
    length = torch.export.Dim("length")
    shapes = ({2: length}, {2: length}, {2: length}, {0: length})
    example, given = ((*drawn(n, n), torch.arange(n) // 9) for n in (16, 31))
    program = torch.export.export(Exported(), example, dynamic_shapes=shapes, strict=strict)
    wanted = Exported()(*given)
    for one, other in zip(program.module()(*given), wanted, strict=True):
        assert torch.equal(one, other)
    if strict:
        torch.export.save(program, tmp_path / "program.pt2")
        torch.save((given, wanted), tmp_path / "given.pt")
        paths = [str(tmp_path / name) for name in ("program.pt2", "given.pt")]
        subprocess.run([sys.executable, "-c", LOADS, *paths], check=True, timeout=120)


def test_what_is_prepared_in_a_graph_or_before_it() -> None:
    attn, ids = spattn.compile("documents(ids) & causal", backend="torch"), torch.arange(40) // 9
    q, k, v = (torch.randn(1, 2, 40, 16, requires_grad=True) for _ in range(3))

    def layers(q: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        prepared = attn.prepare(ids=ids)
        return attn(attn(q, k, v, prepared=prepared), k, v, prepared=prepared)

    traced = torch.compile(layers, fullgraph=True, backend="aot_eager")
    for one in (ids, ids.flip(0)):
        found, want = traced(q, one), layers(q, one)
        assert torch.equal(found, want)
        assert torch.equal(*(torch.autograd.grad(x.square().sum(), q)[0] for x in (found, want)))
    before = attn.prepare(ids=ids)
    once = torch.compile(lambda q: attn(q, k, v, prepared=before), fullgraph=True, backend="aot_eager")
    assert torch.equal(once(q), attn(q, k, v, ids=ids))
