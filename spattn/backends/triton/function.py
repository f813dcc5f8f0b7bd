"""Attention by the Triton kernels as a differentiable function of q, k, v."""

from __future__ import annotations

from typing import Any

import torch

from spattn.backends.request import Plans, Request
from spattn.backends.triton.backward import Gradients, differentiate
from spattn.backends.triton.forward import attend
from spattn.backends.triton.launch import Outputs


def wants_gradient(request: Request) -> bool:
    """Does autograd record this call?"""
    return torch.is_grad_enabled() and any(x.requires_grad for x in (request.q, request.k, request.v))


def attention(plans: Plans, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, lse), both differentiable, once."""
    out, lse = _Attention.apply(request.q, request.k, request.v, plans, request)  # type: ignore[no-untyped-call]
    return out, lse


class _Attention(torch.autograd.Function):
    """(out, lse) of q, k, v along the layouts of a pattern."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plans: Plans, request: Request
    ) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = Outputs.of(request)
        attend(plans, request, outputs)
        # the pattern's tensors too: autograd notices if they are changed before the backward pass
        ctx.save_for_backward(q, k, v, outputs.out, outputs.lse, *request.tensors.values())
        ctx.plans, ctx.names = plans, tuple(request.tensors)
        ctx.options = {"scale": request.scale, "q_offset": request.q_offset, "tf32": request.tf32}
        ctx.set_materialize_grads(False)
        return outputs.out, outputs.lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: torch.Tensor | None, d_lse: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        q, k, v, out, lse, *tensors = ctx.saved_tensors
        request = Request(q, k, v, tensors=dict(zip(ctx.names, tensors, strict=True)), **ctx.options)
        wants_q, wants_k, wants_v, *_ = ctx.needs_input_grad
        if d_out is None and d_lse is None:
            return None, None, None, None, None
        into = Gradients.of(request, wants_q, wants_k or wants_v)
        differentiate(ctx.plans, request, Outputs(out, lse), d_out, d_lse, into)
        return into.q, into.k if wants_k else None, into.v if wants_v else None, None, None
