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
    *results, d_floats = BACKWARD(*_folded(operands, in_dims, info.batch_size, plan, by_request), *rest)
    assert not d_floats  # a score's tensors may tell batch entries apart
    made = [_unfolded(x, info.batch_size) if asked else x for x, asked in zip(results, wanted, strict=True)]
    return (*made, []), (*(0 if asked else None for asked in wanted), [])


def _bwd_bwd(info: Any, in_dims: tuple[Any, ...], *given: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    operands, (_, plan, *_, by_request) = given[:10], (rest := given[10:])
    results = SECOND(*_folded(operands, in_dims, info.batch_size, plan, by_request), *rest)
    return tuple(_unfolded(x, info.batch_size) for x in results), (0,) * len(results)


def _folded(
    operands: Sequence[Tensor | None], in_dims: tuple[Any, ...], size: int, plan: str, by_request: str
) -> list[Tensor | None]:
    """The new dimension of each before its batch, and one with it."""
    if by_request or reads_batch(plan):
        what = f"this call gives {by_request}" if by_request else "this pattern tells these apart or reads tensors"
        why = f"vmap adds entries to the batch, and {what}"
        raise UnsupportedError("E061", why, hint="give q, k and v a batch dimension instead")
    moved = (
        x if x is None else x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(operands, in_dims, strict=False)
    )
    return [x if x is None else x.flatten(0, 1) for x in moved]


def _unfolded(x: Tensor, size: int) -> Tensor:
    return x.view(size, x.shape[0] // size, *x.shape[1:])
