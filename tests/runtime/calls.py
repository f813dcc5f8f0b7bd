"""Calls that the tests of operators share: patterns, their tensors, inputs, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

PATTERNS = {
    "window": "last(6)",
    "two walks": "last(5) | columns([::6])",
    "groups": "heads([0]) & local(3) | heads([1:]) & causal",
    "documents": "documents(ids) & causal",
    "packed": "within(q_ids, segments(cu), causal)",
    "tokens": "last(4) | columns([t]) & valid(n)",
}


def tensors(name: str, device: str = "cpu", kv_len: int = 21, q_len: int = 17) -> dict[str, Tensor]:
    """The pattern's tensors for a batch of two."""
    match name:
        case "documents":
            return {"ids": (torch.arange(kv_len, device=device) // 9).expand(2, -1).contiguous()}
        case "packed":
            cu = torch.tensor([0, 4, 9, kv_len, kv_len], device=device)
            return {"q_ids": torch.arange(q_len, device=device) // 6, "cu": cu}
        case "tokens":
            lengths = torch.tensor([kv_len, kv_len // 2], device=device)
            return {"t": torch.tensor([0, 7], device=device), "n": lengths}
    return {}


def drawn(q_len: int = 17, kv_len: int = 21, *, device: str = "cpu", dim: int = 16, **options: Any) -> list[Tensor]:
    """q, k and v: a batch of two, four heads on two."""
    generator = torch.Generator(device).manual_seed(q_len + kv_len)
    shapes = ((4, q_len), (2, kv_len), (2, kv_len))
    return [torch.randn(2, *shape, dim, generator=generator, device=device).to(**options) for shape in shapes]


def derived(call: Callable[..., Any], given: list[Tensor]) -> tuple[Tensor, ...]:
    """What `call` answers of q, k and v, then the gradients of some function of it."""
    inputs = [x.detach().clone().requires_grad_() for x in given]
    found = call(*inputs)
    results = found if isinstance(found, tuple) else (found,)
    loss = sum(x.float()[..., 8:].sin().sum() for x in results)
    assert isinstance(loss, Tensor)
    loss.backward()
    gradients = [x.grad for x in inputs if x.grad is not None]
    assert len(gradients) == len(inputs)
    return *(x.detach() for x in results), *gradients
