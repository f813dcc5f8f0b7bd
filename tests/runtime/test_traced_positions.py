"""Positions and lengths through operators: traced, compiled, transformed, vmapped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import spattn
from spattn import oracle
from spattn.call.positions import Numbers
from spattn.errors import ArgumentError, UnsupportedError
from spattn.runtime.operators import FORWARD
from tests.runtime.calls import derived, drawn

ATTN = spattn.compile("last(6) | columns([0])", backend="torch")
PLACED: dict[str, dict[str, Any]] = {
    "numbers": {"k_offset": 4, "kv_len": 30, "q_offset": 9, "missing_keys": "ignore"},
    "offsets": {"q_offset": torch.tensor(3), "kv_len": torch.tensor([20, 9])},
    "padded": {"q_lens": torch.tensor([17, 5]), "kv_lens": torch.tensor([8, 21])},
}
PACKED = {"cu_seqlens_q": torch.tensor([0, 5, 17]), "cu_seqlens_k": torch.tensor([1, 9, 21]), "max_seqlen_q": 12}


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    torch._dynamo.reset()


def packed() -> list[Tensor]:
    return [x[0].transpose(0, 1).contiguous() for x in drawn()]


@pytest.mark.parametrize("name", [*PLACED, "packed"])
def test_compiled_calls_are_as_eager_ones(name: str) -> None:
    at, given = (PACKED, packed()) if name == "packed" else (PLACED[name], drawn())

    def call(q: Tensor, k: Tensor, v: Tensor) -> Any:
        return ATTN(q, k, v, return_lse=True, **at)

    quick = torch.compile(call, backend="aot_eager", fullgraph=True)
    mine, want = derived(lambda *x: quick(*x)[0], given), derived(lambda *x: call(*x)[0], given)
    assert all(map(torch.equal, mine, want))
    assert call(*given)[0].is_contiguous()


def test_one_compilation_serves_all_steps() -> None:
    counter = torch._dynamo.testing.CompileCounter()
    q, k, v = drawn()
    quick = torch.compile(lambda at: ATTN(q, k, v, q_offset=at, kv_len=at + 1), backend=counter, fullgraph=True)
    for step in (3, 9, 20):
        at = torch.tensor([step])
        torch.testing.assert_close(quick(at), ATTN(q, k, v, q_offset=step, kv_len=step + 1))
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", PLACED)
def test_torch_finds_no_fault_with_the_operator(name: str) -> None:
    at = PLACED[name]
    tensors = {key: x.reshape(-1) for key, x in at.items() if isinstance(x, Tensor)}
    numbers = Numbers(**{key: x for key, x in at.items() if key not in tensors})
    rest = list(tensors.values()), ATTN._plan.text, None, *numbers, " ".join(tensors)
    given = [x.requires_grad_() for x in drawn()]
    torch.library.opcheck(FORWARD, (*given, *rest))
    mine = derived(lambda *x: FORWARD(*x, *rest), drawn())
    want = derived(lambda *x: ATTN(*x, return_lse=True, **at), drawn())
    assert all(map(torch.equal, mine, want))


def test_a_graph_that_names_other_tensors_is_refused() -> None:
    for names in ("q", "q_lens q_lens"):
        with pytest.raises(ArgumentError, match="E060"):
            FORWARD(*drawn(), [torch.arange(2)] * len(names.split()), ATTN._plan.text, None, *Numbers(), names)


@pytest.mark.parametrize("name", PLACED)
def test_transforms_see_positions(name: str) -> None:
    q, k, v = drawn()
    found = torch.func.grad(lambda k: ATTN(q, k, v, **PLACED[name]).sin().sum())(k)
    leaf = k.clone().requires_grad_()
    (want,) = torch.autograd.grad(ATTN(q, leaf, v, **PLACED[name]).sin().sum(), leaf)
    torch.testing.assert_close(found, want)


def test_vmap_takes_numbers_and_no_lengths() -> None:
    q, k, v = (torch.stack([x, 2 * x]) for x in drawn())
    found = torch.vmap(lambda *x: ATTN(*x, **PLACED["numbers"]))(q, k, v)
    for mine, *given in zip(found, q, k, v, strict=True):
        torch.testing.assert_close(mine, ATTN(*given, **PLACED["numbers"]))
    with pytest.raises(UnsupportedError, match="E061: vmap adds entries to the batch, and this call gives q_lens"):
        torch.vmap(lambda *x: ATTN(*x, **PLACED["padded"]))(q, k, v)


def test_gradients_of_gradients_see_lengths() -> None:
    at = {"q_lens": torch.tensor([2, 3]), "kv_lens": torch.tensor([4, 1])}
    q, k, v = (x.double().requires_grad_() for x in drawn(3, 4, dim=2))
    assert torch.autograd.gradgradcheck(lambda *x: ATTN(*x, **at), (q, k, v))


@pytest.mark.parametrize("name", ["numbers", "padded"])
def test_a_mask_is_that_of_the_call(name: str) -> None:
    q, k, v = drawn()
    if name == "padded":
        mask = ATTN.pattern.mask(17, 21, q_lens=PLACED[name]["q_lens"], kv_lens=PLACED[name]["kv_lens"], batch_size=2)
    else:
        mask = ATTN.pattern.mask(17, 30, q_offset=9, k_offset=4, num_keys=21)
    out, lse = ATTN(q, k, v, return_lse=True, **PLACED[name])
    want, want_lse = oracle.attention(q, k, v, mask)
    torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse.double(), want_lse, atol=1e-5, rtol=1e-5)
