"""Attention by the Triton kernels as a differentiable function of q, k, v."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from spattn.call import request as call
from spattn.call.differentiation import Reading, gradients
from spattn.call.prepared import Prepared
from spattn.call.request import CompiledPattern, Request, Upstream
from spattn.gpu.backward import Gradients, dense_rows, differentiate
from spattn.gpu.forward import attend
from spattn.gpu.launch import Outputs
from spattn.gpu.replay import ReplayedCall, bound
from spattn.gpu.replay_backward import ReplayedBackward, replayed_backward

Three = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
MAX_BOUND = 64


Reference = Callable[[CompiledPattern, Request], call.Differentiable]
"""Another backend's gradients of such calls: their derivatives are asked of it."""


def attention(
    plans: CompiledPattern, request: Request, reference: Reference
) -> tuple[torch.Tensor, torch.Tensor, Differentiable]:
    """(out, lse), both differentiable, once; and what does the same for later calls of this kind."""
    made = Differentiable(plans, request, reference)
    return *made(request.q, request.k, request.v, request.tensors), made


class Differentiable:
    """Attention for calls that differ from a request in nothing but the values of their tensors.

    Args:
        plans: The compiled pattern.
        request: A call of the kind; of its tensors none is kept.
        reference: Who knows the derivatives of gradients.
    """

    def __init__(self, plans: CompiledPattern, request: Request, reference: Reference) -> None:
        self._plans, self._reference = plans, reference
        self._options: dict[str, Any] = {"scale": request.scale, "positions": request.positions, "tf32": request.tf32}
        self._forward: ReplayedCall | None = None
        self._backward: dict[Any, ReplayedBackward] = {}

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prepared: Prepared
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, lse), recorded by autograd."""
        out, lse = _Attention.apply(q, k, v, self, prepared)
        return out, lse

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prepared: Prepared
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, lse)."""
        answer = None if self._forward is None else self._forward(q, k, v, prepared)
        if answer is not None:
            return answer
        request = Request(q, k, v, tensors=prepared, **self._options)
        outputs = Outputs.of(request)
        self._forward = bound(request, attend(self._plans, request, outputs))
        return outputs.out, outputs.lse

    def backward(
        self,
        saved: tuple[torch.Tensor, ...],
        prepared: Prepared,
        d_out: torch.Tensor | None,
        d_lse: torch.Tensor | None,
        wanted: tuple[bool, bool, bool],
    ) -> Three:
        """The gradients of q, k and v.

        Args:
            saved: q, k, v, out, lse.
            prepared: The pattern's tensors, as the forward pass saw them.
            d_out: Gradient of out, any strides; None for zero.
            d_lse: Gradient of lse; None for zero.
            wanted: Which are asked for; the others are None.
        """
        q, k, v, out, lse = saved
        d_out, outputs = dense_rows(d_out, out), Outputs(out, lse)
        rows = d_out.stride(), None if d_lse is None else d_lse.stride()
        key = wanted, q.stride(), k.stride(), v.stride(), out.stride(), *rows
        known = self._backward.get(key)
        into = None if known is None else known(q, k, v, outputs, d_out, d_lse, prepared)
        if into is None:
            request = Request(q, k, v, tensors=prepared, **self._options)
            into = _unwritten(q, k, v, wanted)
            ran = differentiate(self._plans, request, outputs, d_out, d_lse, into)
            self._keep(key, replayed_backward(request, (d_out, d_lse, out, lse), ran, wanted))
        return _asked(into, wanted)

    def second(
        self,
        saved: tuple[torch.Tensor, ...],
        prepared: Prepared,
        d_out: torch.Tensor | None,
        d_lse: torch.Tensor | None,
        upstream: Upstream,
    ) -> tuple[torch.Tensor, ...]:
        """The derivatives of `backward`, by another backend, which runs the same plan."""
        q, k, v, *_ = saved
        request = Request(q, k, v, tensors=prepared, **self._options)
        return self._reference(self._plans, request).second(saved, prepared, d_out, d_lse, upstream)

    @staticmethod
    def unwritten(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, wanted: tuple[bool, bool, bool]) -> Three:
        """What `backward` answers, before anything is computed."""
        return _asked(_unwritten(q, k, v, wanted), wanted)

    def _keep(self, key: Any, known: ReplayedBackward | None) -> None:
        if len(self._backward) >= MAX_BOUND:
            self._backward.clear()
        if known is not None:
            self._backward[key] = known


def _unwritten(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
    """Where kernels write: dq always, which finds what the others need; those of k and v together or not at all."""
    keys = wanted[1] or wanted[2]
    return Gradients.of(q, k if keys else None, v if keys else None)


def _asked(into: Gradients, wanted: tuple[bool, bool, bool]) -> Three:
    return into.q if wanted[0] else None, into.k if wanted[1] else None, into.v if wanted[2] else None


class _Attention(torch.autograd.Function):
    """(out, lse) of q, k, v along the layouts of a pattern."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        made: Differentiable,
        prepared: Prepared,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # whatever is written to the pattern's tensors, the backward pass sees what the forward pass saw
        prepared = prepared.copied()
        out, lse = made.forward(q, k, v, prepared)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.made, ctx.prepared = made, prepared
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, d_out: torch.Tensor | None, d_lse: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        if d_out is None and d_lse is None:
            return None, None, None, None, None
        made = Reading(ctx.made, ctx.prepared)
        return *gradients(made, ctx.saved_tensors, d_out, d_lse, ctx.needs_input_grad[:3]), None, None
