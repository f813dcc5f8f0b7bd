"""vmap over the operators: the new dimension becomes a part of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spattn.errors import UnsupportedError
from spattn.runtime.operators import BACKWARD, FORWARD, LIBRARY, SECOND, reads_batch


def register() -> None:
    """Tells torch how the operators are vmapped."""
    torch.library.register_vmap("spattn::fwd", _fwd, lib=LIBRARY)
    torch.library.register_vmap("spattn::bwd", _bwd, lib=LIBRARY)
    torch.library.register_vmap("spattn::bwd_bwd", _bwd_bwd, lib=LIBRARY)


def _fwd(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    operands, (_, plan, *_, by_request) = given[:3], (rest := given[3:])
    results = FORWARD(*_folded(operands, in_dims, info.batch_size, plan, by_request), *rest)
    return tuple(_unfolded(x, info.batch_size) for x in results), (0, 0)


def _bwd(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    operands, (_, plan, *_, by_request, wanted) = given[:7], (rest := given[7:])
    if any(wanted[3:]):
        return _one_by_one(_in_front(operands, in_dims, info.batch_size, plan, by_request), info.batch_size, rest)
    *results, d_floats = BACKWARD(*_folded(operands, in_dims, info.batch_size, plan, by_request), *rest)
    made = [_unfolded(x, info.batch_size) if asked else x for x, asked in zip(results, wanted, strict=False)]
    return (*made, d_floats), (*(0 if asked else None for asked in wanted[:3]), [None] * len(d_floats))


def _one_by_one(
    operands: Sequence[Tensor | None], size: int, rest: Sequence[Any]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The gradients of each, since of what a score reads a batch has one gradient, the sum."""
    each = [BACKWARD(*(x if x is None else x[i] for x in operands), *rest) for i in range(size)]
    *results, d_floats = zip(*each, strict=True)
    made = [torch.stack(x) for x in results], [torch.stack(x) for x in zip(*d_floats, strict=True)]
    return (*made[0], made[1]), (0, 0, 0, [0] * len(made[1]))


def _bwd_bwd(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    operands, (_, plan, *_, by_request) = given[:10], (rest := given[10:])
    results = SECOND(*_folded(operands, in_dims, info.batch_size, plan, by_request), *rest)
    return tuple(_unfolded(x, info.batch_size) for x in results), (0,) * len(results)


def _folded(
    operands: Sequence[Tensor | None], in_dims: tuple[Any, ...], size: int, plan: str, by_request: str
) -> list[Tensor | None]:
    """The new dimension of each before its batch, and one with it."""
    moved = _in_front(operands, in_dims, size, plan, by_request)
    return [x if x is None else x.flatten(0, 1) for x in moved]


def _in_front(
    operands: Sequence[Tensor | None], in_dims: tuple[Any, ...], size: int, plan: str, by_request: str
) -> list[Tensor | None]:
    """Each with the new dimension before its batch; the dimensions of a call's tensors follow those of operands."""
    what = ""
    if by_request or reads_batch(plan):
        apart = "this pattern reads tensors, or it or its score tells these apart"
        what = f"this call gives {by_request}" if by_request else apart
    elif any(dim is not None for dim in in_dims[len(operands)]):
        what = "what this score reads is different for each"
    if what:
        why = f"vmap adds entries to the batch, and {what}"
        raise UnsupportedError("E061", why, hint="give q, k and v a batch dimension instead")
    return [
        x if x is None else x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(operands, in_dims, strict=False)
    ]


def _unfolded(x: Tensor, size: int) -> Tensor:
    return x.view(size, x.shape[0] // size, *x.shape[1:])
