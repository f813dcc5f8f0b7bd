"""Attention over disjoint sets of keys, put together: from each its out and its lse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from spattn.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor


def merge(parts: Iterable[tuple[Tensor, Tensor]], *, packed: bool = False) -> tuple[Tensor, Tensor]:
    """Attention over the union of disjoint sets of keys, exact and differentiable.

    A part without keys for a row, of lse -inf, counts nothing for it, whatever its out is. Sums are in float32, in
    float64 where out or lse is; out is rounded once.

    Args:
        parts: (out, lse) of each set: out `[.., q_len, v_head_dim]` of any float dtype, lse `[.., q_len]`, the natural
            log-sum-exp of each row's scores, float32 or float64.
        packed: Is out `[tokens, num_q_heads, v_head_dim]` and lse `[num_q_heads, tokens]`, as of calls with
            `cu_seqlens_q`?

    Returns:
        (out, lse), shapes and dtypes as those of each part. A row without keys has out 0, lse -inf, gradients 0.

    Raises:
        ArgumentError: E060, there are no parts, or their shapes, dtypes or devices differ.
    """
    import torch

    given = _checked(tuple(parts), packed)
    outs, kind = [out for out, _ in given], given[0][1].dtype
    lses = [lse.to(torch.promote_types(kind, out.dtype)) for out, lse in given]
    weights, lse = _weights(lses)
    out = None
    for one, part, weight in zip(outs, lses, weights, strict=True):
        factor, empty = (x.transpose(-1, -2) if packed else x for x in (weight, part.isneginf()))
        addend = one.masked_fill(empty.unsqueeze(-1), 0) * factor.unsqueeze(-1)
        out = addend if out is None else out + addend
    assert out is not None
    return out.to(outs[0].dtype), lse.to(kind)


def _weights(lses: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Each part's share of a row, and the row's lse.

    Where a row has no keys nothing is divided by its sum, so that gradients are 0 and no NaN.
    """
    import torch

    top = torch.stack([lse.detach() for lse in lses]).amax(0)
    top = torch.where(top.isfinite(), top, 0.0)
    powers = [(lse - top).exp() for lse in lses]
    total = sum(powers[1:], start=powers[0])
    empty = total == 0
    total = total.masked_fill(empty, 1)
    return [power / total for power in powers], (total.log() + top).masked_fill(empty, -torch.inf)


def _checked(parts: tuple[tuple[Tensor, Tensor], ...], packed: bool) -> tuple[tuple[Tensor, Tensor], ...]:
    """The parts, if they fit each other."""
    import torch

    if not parts:
        raise ArgumentError("E060", "there is nothing to merge", hint="give one (out, lse) at least")
    for i, part in enumerate(parts):
        if not (isinstance(part, Sequence) and len(part) == 2 and all(isinstance(x, torch.Tensor) for x in part)):
            raise ArgumentError("E060", f"part {i} is no pair of tensors", hint="call with return_lse=True")
        _dtypes_fit(i, *part)
        _shapes_fit(i, *part, packed)
        for name, mine, first in zip(("out", "lse"), part, parts[0], strict=True):
            _is_like(f"{name} of part {i}", mine, first)
    return parts


def _dtypes_fit(i: int, out: Tensor, lse: Tensor) -> None:
    import torch

    if not out.is_floating_point():
        raise ArgumentError("E060", f"out of part {i} is {out.dtype}, and no float dtype")
    if lse.dtype not in (torch.float32, torch.float64):
        raise ArgumentError("E060", f"lse of part {i} is {lse.dtype}; it is float32 or float64")
    if lse.device != out.device:
        raise ArgumentError("E060", f"lse of part {i} is on {lse.device} and out on {out.device}")


def _shapes_fit(i: int, out: Tensor, lse: Tensor, packed: bool) -> None:
    rows = tuple(out.shape[:-1])
    if not out.dim() or tuple(lse.shape) != (rows[::-1] if packed else rows) or (packed and out.dim() != 3):
        wanted = "[heads, tokens] of [tokens, heads, dim]" if packed else "[.., q_len] of [.., q_len, dim]"
        message = f"part {i} has out {list(out.shape)} and lse {list(lse.shape)}, which is not {wanted}"
        turned = not packed and out.dim() == 3 and tuple(lse.shape) == rows[::-1]
        raise ArgumentError("E060", message, hint="packed=True merges results of packed rows" if turned else "")


def _is_like(what: str, mine: Tensor, first: Tensor) -> None:
    """Is a tensor like that of the first part?"""
    if mine.shape != first.shape:
        raise ArgumentError("E060", f"{what} has shape {list(mine.shape)}, that of part 0 {list(first.shape)}")
    if mine.dtype != first.dtype:
        raise ArgumentError("E060", f"{what} is {mine.dtype}, that of part 0 {first.dtype}")
    if mine.device != first.device:
        raise ArgumentError("E060", f"{what} is on {mine.device}, that of part 0 on {first.device}")
