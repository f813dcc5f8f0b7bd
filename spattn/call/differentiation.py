"""Gradients as autograd records them: where it does (`create_graph=True`), they have derivatives of their own.

So a second derivative is exact, and of a third one there is always an error: a function of torch that is said to be
differentiable once notices a second pass only where the gradient that it is given has a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from spattn.call.prepared import Prepared
from spattn.call.request import Differentiable, Upstream
from spattn.errors import UnsupportedError


class Derivatives(Protocol):
    """The gradients of one call, and their derivatives; arguments are those of `request.Differentiable`."""

    def backward(
        self, saved: tuple[Tensor, ...], d_out: Tensor | None, d_lse: Tensor | None, wanted: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """The gradients of q, k, v and of what a score reads."""
        ...

    def second(
        self, saved: tuple[Tensor, ...], d_out: Tensor | None, d_lse: Tensor | None, upstream: Upstream
    ) -> tuple[Tensor, ...]:
        """The derivatives of `backward`."""
        ...


@dataclass(frozen=True)
class Reading:
    """The derivatives of calls of a kind that read given tensors."""

    made: Differentiable
    prepared: Prepared

    def backward(
        self, saved: tuple[Tensor, ...], d_out: Tensor | None, d_lse: Tensor | None, wanted: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """The gradients of q, k, v and of what a score reads."""
        return self.made.backward(saved, self.prepared, d_out, d_lse, wanted)

    def second(
        self, saved: tuple[Tensor, ...], d_out: Tensor | None, d_lse: Tensor | None, upstream: Upstream
    ) -> tuple[Tensor, ...]:
        """The derivatives of `backward`."""
        return self.made.second(saved, self.prepared, d_out, d_lse, upstream)


def gradients(
    made: Derivatives,
    saved: tuple[Tensor, ...],
    d_out: Tensor | None,
    d_lse: Tensor | None,
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Those that `made.backward` has; differentiable where autograd records."""
    if torch.is_grad_enabled():
        found: tuple[Tensor | None, ...] = _First.apply(made, wanted, d_out, d_lse, *saved)
        return found
    return made.backward(saved, d_out, d_lse, wanted)


def where_given(found: Sequence[Tensor], given: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """What was not given has no derivative."""
    return tuple(None if one is None else derivative for derivative, one in zip(found, given, strict=True))


def refuse_third(ctx: Any, *grad_outputs: Any) -> Any:
    """The derivative of a second derivative.

    Raises:
        UnsupportedError: E061, always.
    """
    raise UnsupportedError("E061", "attention has no third derivatives", hint="leave out one create_graph=True")


class _First(torch.autograd.Function):
    """The gradients of q, k, v and of what a score reads."""

    @staticmethod
    def forward(
        ctx: Any,
        made: Derivatives,
        wanted: tuple[bool, ...],
        d_out: Tensor | None,
        d_lse: Tensor | None,
        *saved: Tensor,
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(d_out, d_lse, *saved)
        ctx.made = made
        ctx.set_materialize_grads(False)
        return made.backward(saved, d_out, d_lse, wanted)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        found = _Second.apply(ctx.made, *upstream[:3], *given)  # a score has no second derivatives
        return None, None, *where_given(found, given[:7]), *[None] * len(given[7:])


class _Second(torch.autograd.Function):
    """The derivatives of the gradients, which have none."""

    @staticmethod
    def forward(
        ctx: Any,
        made: Derivatives,
        g_q: Tensor | None,
        g_k: Tensor | None,
        g_v: Tensor | None,
        d_out: Tensor | None,
        d_lse: Tensor | None,
        *saved: Tensor,
    ) -> tuple[Tensor, ...]:
        del ctx
        return made.second(saved, d_out, d_lse, (g_q, g_k, g_v))

    backward = staticmethod(refuse_third)
