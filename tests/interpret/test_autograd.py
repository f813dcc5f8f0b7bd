"""Calls as autograd records them: the Triton kernels behind `spattn.compile`, beside the torch backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import spattn
from spattn.call.positions import USUAL
from spattn.errors import UnsupportedError
from spattn.runtime.operators import BACKWARD, FORWARD

pytestmark = pytest.mark.interpret

PATTERNS = {
    "window": "last(6)",
    "two passes": "last(5) | strided(6)",
    "groups": "heads([0]) & local(3) | heads([1:]) & causal",
    "documents": "documents(ids) & causal",
}
GIVEN: dict[str, dict[str, Any]] = {"documents": {"ids": torch.tensor([0] * 9 + [1] * 12)}}


def inputs(wanted: str = "qkv", heads: tuple[int, int] = (4, 2)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((heads[0], 17), (heads[1], 21), (heads[1], 21))
    made = [torch.randn(2, *shape, 16, generator=generator) for shape in shapes]
    return [x.requires_grad_(name in wanted) for name, x in zip("qkv", made, strict=True)]


def derived(backend: str, pattern: str, tensors: dict[str, Any], wanted: str = "qkv") -> list[torch.Tensor | None]:
    given = inputs(wanted)
    out, lse = spattn.compile(pattern, backend=backend)(*given, return_lse=True, **tensors)
    assert out.requires_grad
    (out.square().sum() + lse[..., 8:].sin().sum()).backward()
    return [x.grad for x in given]


@pytest.mark.parametrize("name", PATTERNS)
def test_both_backends_give_the_same_gradients(name: str) -> None:
    mine, theirs = (derived(backend, PATTERNS[name], GIVEN.get(name, {})) for backend in ("triton", "torch"))
    for one, other in zip(mine, theirs, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("wanted", ["q", "k", "v", "qv", "kv"])
def test_only_what_is_asked_for_is_computed(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from spattn.gpu import backward

    kinds = []
    launched = backward.launched
    monkeypatch.setattr(backward, "launched", lambda one, *rest: kinds.append(one.kind.name) or launched(one, *rest))
    found, all_of_them = derived("triton", "last(6)", {}, wanted), derived("torch", "last(6)", {})
    # dq also finds what the others need
    assert set(kinds) == {"grad_q"} | {"grad_kv" for name in wanted if name != "q"}
    for name, one, other in zip("qkv", found, all_of_them, strict=True):
        if name in wanted:
            torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)
        else:
            assert one is None


def test_either_result_alone() -> None:
    for pick in (0, 1):
        found = []
        for backend in ("triton", "torch"):
            attn, given = spattn.compile("last(6)", backend=backend), inputs()
            result = attn(*given, return_lse=True)[pick]
            result.sum().backward()  # an expanded gradient, of strides 0
            found.append([x.grad if x.grad is not None else torch.zeros_like(x) for x in given])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


def test_gradients_are_laid_out_as_what_they_belong_to() -> None:
    q, k, v = (x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in inputs())
    expanded = k[:, :1].detach().expand(-1, 2, -1, -1).requires_grad_()
    out = spattn.compile("last(6)", backend="triton")(q, expanded, v)
    found = torch.autograd.grad(out.transpose(1, 2).square().sum(), (q, expanded, v))
    assert found[0].stride() == q.stride()
    wanted = spattn.compile("last(6)", backend="torch")(q, expanded, v)
    for one, other in zip(found, torch.autograd.grad(wanted.square().sum(), (q, expanded, v)), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


def test_without_gradients_nothing_is_recorded() -> None:
    attn, given = spattn.compile("last(6)", backend="triton"), inputs()
    with torch.no_grad():
        assert not attn(*given).requires_grad
    assert not attn(*(x.detach() for x in given)).requires_grad
    assert attn(*given).requires_grad


@pytest.mark.parametrize("name", PATTERNS)
def test_both_backends_give_the_same_second_derivatives(name: str) -> None:
    found = []
    for backend in ("triton", "torch"):
        attn, given = spattn.compile(PATTERNS[name], backend=backend), inputs()
        out, lse = attn(*given, return_lse=True, **GIVEN.get(name, {}))
        # linear in out: what is given to the first pass has no graph
        first = torch.autograd.grad(out.sum() + lse[..., 8:].sin().sum(), given[:2], create_graph=True)
        found.append(torch.autograd.grad(sum(x.square().sum() for x in first), given))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_a_third_derivative_is_refused() -> None:
    q, k, v = inputs()
    out = spattn.compile("last(6)", backend="triton")(q, k, v)
    (first,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), q, create_graph=True)
    with pytest.raises(UnsupportedError, match="no third derivatives"):
        second.sum().backward()


def test_the_backward_pass_sees_the_pattern_s_tensors_as_they_were() -> None:
    attn, given = spattn.compile("documents(ids) & causal", backend="triton"), inputs()
    ids = torch.tensor([0] * 9 + [1] * 12)
    want = torch.autograd.grad(attn(*given, ids=ids).square().sum(), given)
    out = attn(*given, ids=ids)
    ids += torch.arange(21) % 2
    found = torch.autograd.grad(out.square().sum(), given)
    assert all(map(torch.equal, found, want))


def test_a_graph_may_be_walked_twice() -> None:
    given = inputs()
    out = spattn.compile("last(5) | strided(6)", backend="triton")(*given)
    once = torch.autograd.grad(out.square().sum(), given, retain_graph=True)
    again = torch.autograd.grad(out.square().sum(), given)
    assert all(map(torch.equal, once, again))


def rest(name: str) -> tuple[Any, ...]:
    """What the operators are given after q, k and v."""
    tensors = GIVEN.get(name, {})
    return list(tensors.values()), spattn.compile(PATTERNS[name], backend="triton")._plan.text, None, *USUAL, ""


@pytest.mark.parametrize("name", ["groups", "documents"])
def test_operators_compute_what_calls_do(name: str) -> None:
    given = inputs()
    out, lse = FORWARD(*given, *rest(name))
    (out.square().sum() + lse[..., 8:].sin().sum()).backward()
    for one, other in zip(given, derived("triton", PATTERNS[name], GIVEN.get(name, {})), strict=True):
        assert one.grad is not None
        assert other is not None
        assert torch.equal(one.grad, other)


@pytest.mark.parametrize("name", ["window", "documents"])
def test_torch_finds_no_fault_with_the_operators(name: str) -> None:
    q, k, v = (x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in inputs())
    given = q, k[:, :1].expand(-1, 2, -1, -1), v
    torch.library.opcheck(FORWARD, (*(x.detach().requires_grad_() for x in given), *rest(name)))
    out, lse = FORWARD(*given, *rest(name))
    torch.library.opcheck(BACKWARD, (out, lse.exp(), *given, out, lse, *rest(name), [True] * 3))


@pytest.mark.filterwarnings("ignore:Deterministic behavior")
@pytest.mark.parametrize("name", ["groups", "documents"])
def test_torch_s_deterministic_mode_changes_nothing(name: str) -> None:
    usual = derived("triton", PATTERNS[name], GIVEN.get(name, {}))
    torch.use_deterministic_algorithms(True)
    try:
        mine = derived("triton", PATTERNS[name], GIVEN.get(name, {}))
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(mine, usual, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
