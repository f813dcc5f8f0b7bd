"""What a backend knows of a kind of calls, for operators: gradients without autograd."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

import torch

from spattn.backends.registry import BACKENDS
from spattn.backends.request import Plans, Request


class Differentiable(Protocol):
    """Calls that differ in nothing but the values of their tensors."""

    def backward(
        self,
        saved: tuple[torch.Tensor, ...],
        d_out: torch.Tensor | None,
        d_lse: torch.Tensor | None,
        wanted: tuple[bool, bool, bool],
    ) -> tuple[torch.Tensor | None, ...]:
        """The gradients of q, k and v, None for those that are not wanted.

        Args:
            saved: q, k, v, out, lse, then the pattern's tensors in the request's order.
            d_out: Gradient of out; None for zero.
            d_lse: Gradient of lse; None for zero.
            wanted: Which are asked for.
        """
        ...

    def unwritten(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, wanted: tuple[bool, bool, bool]
    ) -> tuple[torch.Tensor | None, ...]:
        """What `backward` answers, before anything is computed."""
        ...


def differentiable(backend: str, plans: Plans, request: Request) -> Differentiable:
    """The kind of a request: `Differentiable` of the module `function`, beside the backend's own."""
    package = BACKENDS[backend].rpartition(".")[0]
    module: Any = import_module(f"{package}.function")
    return cast(Differentiable, module.Differentiable(plans, request))
