"""Drawn calls of drawn patterns: tensors written to between calls, views, numbers of other types, odd offsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import spattn
from spattn.frontend.syntax import Node
from tests import strategies
from tests.rewritten import WAYS

LENGTH, HEADS = 24, 2


@st.composite
def rewritten(draw: st.DrawFn) -> tuple[Node, dict[str, Tensor], dict[str, Tensor]]:
    """A pattern that reads tensors, these, and other values for them."""
    node = draw(strategies.patterns(depth=2).filter(lambda node: spattn.parse(str(node)).free_names))
    roles = spattn.parse(str(node)).free_names
    old = {name: torch.as_tensor(x) for name, x in draw(strategies.tensors_for(node, LENGTH, LENGTH, 1, HEADS)).items()}
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    return node, old, {name: _shuffled(x, roles[name], random) for name, x in old.items()}


def _shuffled(x: Tensor, role: str, random: np.random.Generator) -> Tensor:
    """Other numbers of the same kind."""
    if role == "segments":
        return torch.as_tensor(np.sort(random.integers(0, LENGTH + 1, x.shape)))
    return x[None].flatten()[torch.as_tensor(random.permutation(x.numel()))].view(x.shape)


def inputs(seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, HEADS, LENGTH, 16, generator=generator).requires_grad_() for _ in range(3))


def answers(attn: spattn.Attention, tensors: dict[str, Any], q_offset: int | None) -> list[Tensor]:
    leaves = inputs(0)
    out, lse = attn(*leaves, return_lse=True, q_offset=q_offset, **tensors)
    return [out.detach(), lse.detach(), *torch.autograd.grad(out.square().sum(), leaves)]


BACKENDS = [pytest.param("torch", 40), pytest.param("triton", 6, marks=pytest.mark.interpret)]


@pytest.mark.parametrize(("backend", "examples"), BACKENDS)
def test_what_is_written_is_read(backend: str, examples: int) -> None:
    @settings(max_examples=examples)
    @given(rewritten(), st.sampled_from(WAYS), st.sampled_from([None, 0, -5, 7, 30]))
    def check(drawn: tuple[Node, dict[str, Tensor], dict[str, Tensor]], write: Any, q_offset: int | None) -> None:
        node, old, new = drawn
        attn = spattn.compile(str(node), backend=backend)
        want = [answers(attn, tensors, q_offset) for tensors in (old, new)]
        kept = {name: x.clone() for name, x in old.items()}
        for which in (0, 1, 0):
            for name, x in kept.items():
                write(x, (old, new)[which][name])
            found = answers(attn, kept, q_offset)
            assert all(
                torch.equal(mine.nan_to_num(7), one.nan_to_num(7)) for mine, one in zip(found, want[which], strict=True)
            )

    check()


@settings(max_examples=30)
@given(rewritten(), st.sampled_from([torch.int64, torch.int32, torch.int16]), st.booleans())
def test_numbers_of_any_type_and_stride_are_the_same(drawn: Any, dtype: torch.dtype, strided: bool) -> None:
    node, old, _ = drawn
    attn = spattn.compile(str(node), backend="torch")
    same = {name: x if x.dtype == torch.bool else x.to(dtype) for name, x in old.items()}
    if strided:
        same = {name: torch.stack([x, x], -1)[..., 0] for name, x in same.items()}
    for mine, one in zip(answers(attn, same, None), answers(attn, old, None), strict=True):
        assert torch.equal(mine, one)
