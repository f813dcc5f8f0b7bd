"""What a call may be given beside dense tensors: numbers, tensors as scale; the rest is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad
from torch.masked import masked_tensor
from torch.utils.checkpoint import checkpoint

import spattn
from spattn.errors import ArgumentError, BindError
from spattn.nn import SparseAttention
from tests.runtime.calls import drawn

ATTN = spattn.compile("last(6)")


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("wrong", [True, np.bool_(1), 1.0, torch.tensor(1.0), "1", [1]], ids=lambda x: type(x).__name__)
def test_an_offset_is_an_integer(wrong: Any) -> None:
    ATTN(*drawn(), q_offset=1)  # an equal number is known by now
    for call in (ATTN, SparseAttention("last(6)"), torch.compile(ATTN, backend="aot_eager")):
        with pytest.raises(ArgumentError, match="E060: q_offset is "):
            call(*drawn(), q_offset=wrong)
    assert torch.equal(ATTN(*drawn(), q_offset=np.int64(1)), ATTN(*drawn(), q_offset=1))


WRONG = [True, "1", [1.0], 1j, np.ones(1), float("nan"), -float("inf"), 10**400, torch.ones(2), torch.tensor(1)]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda x: f"{type(x).__name__}")
def test_a_scale_is_a_finite_number(wrong: Any) -> None:
    ATTN(*drawn(), scale=1.0)
    for call in (ATTN, lambda *x, scale: SparseAttention("last(6)", scale=scale)(*x)):
        with pytest.raises(ArgumentError, match="E060: scale is"):
            call(*drawn(), scale=wrong)
    for number in (1, np.float32(1), np.int64(1)):
        assert torch.equal(ATTN(*drawn(), scale=number), ATTN(*drawn(), scale=1.0))


def dense(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    mask = torch.as_tensor(spattn.parse("last(6)").mask(q.shape[2], k.shape[2]))
    k, v = (x.repeat_interleave(2, 1) for x in (k, v))
    return (q @ k.mT * scale.reshape(())).masked_fill(~mask, -torch.inf).softmax(-1) @ v


def ours(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    out: Tensor = ATTN(q, k, v, scale=scale)
    return out


WAYS = {
    "eager": ours,
    "compiled": torch.compile(ours, fullgraph=True, backend="aot_eager"),
    "checkpoint": lambda *x: checkpoint(ours, *x, use_reentrant=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_tensor_as_scale_has_its_value_and_its_gradient_at_each_call(way: str) -> None:
    for value in (torch.tensor(0.3), torch.tensor([0.7])):
        found = []
        for call in (WAYS[way], dense):
            leaves = [x.detach().requires_grad_() for x in (*drawn(), value)]
            out = call(*leaves)
            found.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
        torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_torch_func_and_autocast_differentiate_by_a_scale() -> None:
    q, k, v = drawn()
    mine, theirs = (grad(lambda s, f=f: f(q, k, v, s).sin().sum())(torch.tensor(0.3)) for f in (ours, dense))
    torch.testing.assert_close(mine, theirs)
    scale = torch.tensor(0.3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ours(q, k, v, scale)
    out.sin().sum().backward()
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(scale.grad, theirs, atol=0.5, rtol=0.05)


def test_a_module_learns_its_scale() -> None:
    module = SparseAttention("last(6)", scale=torch.nn.Parameter(torch.tensor(0.3)))
    module(*drawn()).sum().backward()
    assert [name for name, _ in module.named_parameters()] == ["scale"]
    assert module.scale.grad is not None


class Own(Tensor):
    """A class that answers torch's operations itself."""

    @classmethod
    def __torch_function__(cls, *given: Any, **named: Any) -> Any:
        raise AssertionError("an operator ran")


STRANGE = {
    "sparse_coo": lambda x: x.to_sparse(),
    "nested": lambda x: torch.nested.nested_tensor([x[0]]),
    "NestedTensor": lambda x: torch.nested.nested_tensor([x[0].transpose(0, 1)], layout=torch.jagged),
    "MaskedTensor": lambda x: masked_tensor(x, torch.ones_like(x, dtype=torch.bool)),
    "Own": lambda x: x.as_subclass(Own),
    "ndarray": lambda x: x.numpy(),
    "list": lambda x: [1.0],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("autocast", [False, True])
def test_tensors_of_other_classes_and_layouts_are_refused_by_name(name: str, place: int, autocast: bool) -> None:
    given: list[Any] = drawn()
    given[place] = STRANGE[name](given[place])
    with torch.autocast("cpu", enabled=autocast):
        for scale in (None, torch.tensor(1.0)):
            with pytest.raises(ArgumentError, match=f"E060: {'qkv'[place]} is .*{name}"):
                ATTN(*given, scale=scale)


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [(None, "E030", "is given None"), ("text", "E031", "no tensor"), ([[1], [2, 3]], "E031", "no tensor")],
)
def test_what_is_no_tensor_of_the_pattern_is_named(value: Any, code: str, said: str) -> None:
    with pytest.raises(BindError, match=f"{code}: .*{said}"):
        spattn.attention(*drawn(), "columns([t])", t=value)


def test_the_function_takes_what_compile_takes() -> None:
    given = drawn()
    found = spattn.attention(*given, "last(6) & layers([1])", layer=1, tf32=True, tune=False)
    assert torch.equal(found, ATTN(*given))
    assert not spattn.attention(*given, "last(6) & layers([1])", layer=0, tf32=True).any()
