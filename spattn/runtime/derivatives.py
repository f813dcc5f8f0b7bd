"""The derivatives of the operators, each by the next: `spattn::fwd`, `bwd`, `bwd_bwd`; in reverse mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spattn.call.differentiation import refuse_third, where_given
from spattn.call.positions import USUAL, Numbers
from spattn.errors import UnsupportedError
from spattn.runtime.operators import BACKWARD, FORWARD, LIBRARY, SECOND, floats_of

OPERANDS = 13
"""Arguments of `spattn::fwd`."""


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
    floats = [tensors[i] for i in floats_of(plan)]  # by themselves, for transforms to see them
    out, lse = _Forward.apply(q, k, v, tensors, plan, scale, *numbers, " ".join(by_request), *floats)
    return out, lse


def register() -> None:
    """Tells torch how the operators are differentiated."""
    torch.library.register_autograd("spattn::fwd", _of_operator, setup_context=_save, lib=LIBRARY)
    torch.library.register_autograd("spattn::bwd", _of_backward, setup_context=_save_backward, lib=LIBRARY)
    torch.library.register_autograd("spattn::bwd_bwd", refuse_third, lib=LIBRARY)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, tensors, *ctx.rest = inputs
    # whatever is written to the pattern's tensors, the backward pass sees what the forward pass saw
    ctx.save_for_backward(q, k, v, *output, *(one.clone() for one in tensors))
    ctx.set_materialize_grads(False)


def _derived(
    ctx: Any, wanted: tuple[bool, ...], d_out: Tensor | None, d_lse: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The gradients of q, k, v and of what a score reads."""
    if d_out is None and d_lse is None:
        return (None,) * len(wanted)
    q, k, v, out, lse, *tensors = ctx.saved_tensors
    given = d_out, d_lse, q, k, v, out, lse, tensors, *ctx.rest, wanted
    found = _Backward.apply(*given)
    return tuple(one if asked else None for one, asked in zip(found, wanted, strict=True))


def _of_operator(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
    of_tensors, places = ctx.needs_input_grad[3], floats_of(ctx.rest[0])
    wanted = *ctx.needs_input_grad[:3], *(of_tensors[i] for i in places)
    dq, dk, dv, *d_floats = _derived(ctx, wanted, *upstream)
    d_tensors: list[Tensor | None] = [None] * len(of_tensors)
    d_tensors[places.start : places.stop] = d_floats
    return dq, dk, dv, d_tensors, *[None] * len(ctx.rest)


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
    return *_derived_twice(ctx, upstream[:3]), [None] * ctx.count, *[None] * len(ctx.rest), None


def _no_forward_mode(ctx: Any, *tangents: Any) -> Any:
    raise UnsupportedError("E061", "attention has no forward-mode derivative", hint="torch.func.grad, vjp, jacrev")


class _Forward(torch.autograd.Function):
    """(out, lse); last what a score reads, which is among the tensors. vmap by the operator's own rule."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, Tensor]:
        out, lse = FORWARD(*_with_floats(given))
        return out, lse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _save(ctx, _with_floats(inputs), output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        asked = ctx.needs_input_grad
        dq, dk, dv, *d_floats = _derived(ctx, (*asked[:3], *asked[OPERANDS:]), *upstream)
        return dq, dk, dv, None, *[None] * len(ctx.rest), *d_floats

    jvp = staticmethod(_no_forward_mode)


def _with_floats(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """An operator's arguments, from those of `_Forward`."""
    operands, tensors, floats = given[:OPERANDS], list(given[3]), given[OPERANDS:]
    places = floats_of(given[4])
    tensors[places.start : places.stop] = floats
    return *operands[:3], tensors, *operands[4:]


class _Backward(torch.autograd.Function):
    """The gradients."""

    generate_vmap_rule = True
    setup_context = staticmethod(_save_backward)

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, ...]:
        dq, dk, dv, d_floats = BACKWARD(*given)
        return dq, dk, dv, *d_floats

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        return *_derived_twice(ctx, upstream[:3]), None, *[None] * len(ctx.rest), None

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
