"""The derivative of `spattn::fwd`, by `spattn::bwd`; of first order, and in reverse mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spattn.errors import UnsupportedError
from spattn.runtime.operators import BACKWARD, FORWARD, LIBRARY


def transformed(
    q: Tensor, k: Tensor, v: Tensor, tensors: Sequence[Tensor], plan: str, scale: float | None, q_offset: int | None
) -> tuple[Tensor, Tensor]:
    """`operators.forward` for torch.func, whose transforms do not see through an operator's own derivative."""
    out, lse = _Forward.apply(q, k, v, tensors, plan, scale, q_offset)  # type: ignore[no-untyped-call]
    return out, lse


def register() -> None:
    """Tells torch how the operator is differentiated."""
    torch.library.register_autograd("spattn::fwd", _of_operator, setup_context=_save, lib=LIBRARY)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, tensors, *ctx.rest = inputs
    ctx.count = len(tensors)
    # whatever is written to the pattern's tensors, the backward pass sees what the forward pass saw
    ctx.save_for_backward(q, k, v, *output, *(one.clone() for one in tensors))
    ctx.set_materialize_grads(False)


def _derived(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients of q, k and v."""
    if d_out is None and d_lse is None:
        return None, None, None
    wanted = tuple(ctx.needs_input_grad[:3])
    q, k, v, out, lse, *tensors = ctx.saved_tensors
    given = d_out, d_lse, q, k, v, out, lse, tensors, *ctx.rest, wanted
    found = _Backward.apply(*given)  # type: ignore[no-untyped-call]
    return tuple(one if asked else None for one, asked in zip(found, wanted, strict=True))


def _of_operator(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
    return *_derived(ctx, *upstream), [None] * ctx.count, None, None, None


class _Forward(torch.autograd.Function):
    """(out, lse); vmap by the operator's own rule."""

    generate_vmap_rule = True
    setup_context = staticmethod(_save)

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, Tensor]:
        out, lse = FORWARD(*given)
        return out, lse

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        return *_derived(ctx, *upstream), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise UnsupportedError("E061", "attention has no forward-mode derivative", hint="torch.func.grad, vjp, jacrev")


class _Backward(torch.autograd.Function):
    """The gradients, which have none."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, ...]:
        dq, dk, dv = BACKWARD(*given)
        return dq, dk, dv

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        raise UnsupportedError("E061", "attention has first derivatives only", hint="leave out create_graph=True")

    jvp = backward
