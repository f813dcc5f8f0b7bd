"""The derivatives of the operators, each by the next: `spattn::fwd`, `bwd`, `bwd_bwd`; in reverse mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spattn.call.differentiation import refuse_third, where_given
from spattn.call.positions import USUAL, Numbers
from spattn.errors import UnsupportedError
from spattn.runtime.operators import BACKWARD, FORWARD, LIBRARY, SECOND


def transformed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tensors: Sequence[Tensor],
    plan: str,
    scale: float | None,
    numbers: Numbers = USUAL,
    by_request: tuple[str, ...] = (),
) -> tuple[Tensor, Tensor]:
    """`operators.forward` for torch.func, whose transforms do not see through an operator's own derivative."""
    out, lse = _Forward.apply(q, k, v, tensors, plan, scale, *numbers, " ".join(by_request))
    return out, lse


def register() -> None:
    """Tells torch how the operators are differentiated."""
    torch.library.register_autograd("spattn::fwd", _of_operator, setup_context=_save, lib=LIBRARY)
    torch.library.register_autograd("spattn::bwd", _of_backward, setup_context=_save_backward, lib=LIBRARY)
    torch.library.register_autograd("spattn::bwd_bwd", refuse_third, lib=LIBRARY)


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
    found = _Backward.apply(*given)
    return tuple(one if asked else None for one, asked in zip(found, wanted, strict=True))


def _of_operator(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
    return *_derived(ctx, *upstream), [None] * ctx.count, *[None] * len(ctx.rest)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    given, (tensors, *ctx.rest, ctx.wanted) = inputs[:7], inputs[7:]
    ctx.count = len(tensors)
    ctx.save_for_backward(*given, *tensors)
    ctx.set_materialize_grads(False)


def _derived_twice(ctx: Any, upstream: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The derivatives of d_out, d_lse, q, k, v, out and lse."""
    given, tensors = ctx.saved_tensors[:7], list(ctx.saved_tensors[7:])
    asked = (one if wanted else None for one, wanted in zip(upstream, ctx.wanted, strict=True))
    found = _Second.apply(*asked, *given, tensors, *ctx.rest)
    return where_given(found, given)


def _of_backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
    return *_derived_twice(ctx, upstream), [None] * ctx.count, *[None] * len(ctx.rest), None


def _no_forward_mode(ctx: Any, *tangents: Any) -> Any:
    raise UnsupportedError("E061", "attention has no forward-mode derivative", hint="torch.func.grad, vjp, jacrev")


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
        return *_derived(ctx, *upstream), None, *[None] * len(ctx.rest)

    jvp = staticmethod(_no_forward_mode)


class _Backward(torch.autograd.Function):
    """The gradients."""

    generate_vmap_rule = True
    setup_context = staticmethod(_save_backward)

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, ...]:
        dq, dk, dv = BACKWARD(*given)
        return dq, dk, dv

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        return *_derived_twice(ctx, upstream), None, *[None] * len(ctx.rest), None

    jvp = staticmethod(_no_forward_mode)


class _Second(torch.autograd.Function):
    """The derivatives of the gradients, which have none."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, ...]:
        return tuple(SECOND(*given))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    backward = staticmethod(refuse_third)
    jvp = staticmethod(_no_forward_mode)
