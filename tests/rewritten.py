"""Tensors of a pattern that are written to between calls: each kind of tensor, each way of writing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import spattn

LENGTH = 40


def _sorted_ids(random: torch.Generator) -> Tensor:
    return torch.randint(0, 6, (LENGTH,), generator=random, dtype=torch.int32).sort().values


def _mixed_ids(random: torch.Generator) -> Tensor:
    return torch.randint(-3, 4, (LENGTH,), generator=random)


def _table(random: torch.Generator) -> Tensor:
    table = torch.rand(LENGTH // 8, LENGTH // 8, generator=random) < 0.3
    return table | torch.eye(LENGTH // 8, dtype=torch.bool)


def _tokens(random: torch.Generator) -> Tensor:
    return torch.randperm(LENGTH, generator=random)[:10] - 5


def _flags(random: torch.Generator) -> Tensor:
    return torch.rand(LENGTH, generator=random) < 0.5


def _lengths(random: torch.Generator) -> Tensor:
    return torch.randint(LENGTH // 3, LENGTH, (1,), generator=random, dtype=torch.int32)


CASES: dict[str, tuple[str, Callable[[torch.Generator], Tensor]]] = {
    "documents": ("documents(x) & causal", _sorted_ids),
    "documents in any order": ("documents(x) & local(20)", _mixed_ids),
    "positions in documents": ("within(x, sink(2) | last(5))", _sorted_ids),
    "blocks": ("blocks(x, size=8)", _table),
    "columns": ("columns(x) & causal | last(4)", _tokens),
    "global tokens": ("global(x) | local(3)", _tokens),
    "membership": ("columns(x) & columns([::2]) | last(4)", _tokens),
    "lengths": ("valid(x) & causal", _lengths),
    "values": ("where(x[k]) | last(2)", _flags),
}


@dataclass(frozen=True)
class Case:
    """A pattern with one tensor `x`, and what that may hold."""

    pattern: str
    make: Callable[[torch.Generator], Tensor]

    @staticmethod
    def of(name: str) -> Case:
        return Case(*CASES[name])

    def tensor(self, seed: int, device: str = "cpu") -> Tensor:
        return self.make(torch.Generator().manual_seed(seed)).to(device)


def by_copy(x: Tensor, new: Tensor) -> None:
    """As torch counts it."""
    x.copy_(new)


def by_data(x: Tensor, new: Tensor) -> None:
    """Other memory, uncounted."""
    x.data = new.clone()


def by_alias(x: Tensor, new: Tensor) -> None:
    """The same memory, uncounted, as kernels write."""
    x.data.copy_(new)


WAYS = (by_copy, by_data, by_alias)


def answers(
    attn: spattn.Attention, given: tuple[Tensor, ...], between: Callable[[], object] = lambda: None, **tensors: Any
) -> list[Tensor]:
    """(out, lse, dq, dk, dv); something may happen between the forward and the backward pass."""
    out, lse = attn(*given, return_lse=True, **tensors)
    between()
    loss = out.square().sum() + torch.where(lse.isfinite(), lse, 0.0).sin().sum()
    return [out.detach(), lse.detach(), *torch.autograd.grad(loss, given)]


def inputs(device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """q, k, v, which require gradients."""
    normal = partial(torch.randn, generator=torch.Generator(device).manual_seed(3), device=device, dtype=dtype)
    return tuple(normal(1, heads, LENGTH, 16).requires_grad_() for heads in (2, 1, 1))
