"""What the gradients need of each query: one kernel before all others."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from spattn.backends.triton.launch import Outputs
from spattn.backends.triton.schedule import Pointer, Schedule, step
from spattn.backends.triton.tiles import Tile, next_power

MAX_SCHEDULES = 1024
ELEMENTS = 4096  # of a tile
OUT, D_OUT, LSE, D_LSE, LSE2, DELTA = range(6)
_schedules: OrderedDict[Any, Schedule] = OrderedDict()


@dataclass(frozen=True)
class RowTerms:
    """float32 [batch, num_q_heads, q_len].

    Attributes:
        lse2: lse in base 2, +inf for rows without keys: their weights are 0.
        delta: sum(d_out * out) - d_lse.
    """

    lse2: torch.Tensor
    delta: torch.Tensor


def row_terms(kernels: dict[str, Any], saved: Outputs, d_out: torch.Tensor, d_lse: torch.Tensor | None) -> RowTerms:
    """The terms of all rows.

    Args:
        kernels: Of some module of the backward.
        saved: What the forward pass answered.
        d_out: Gradient of out, its last dimension dense.
        d_lse: Gradient of lse; None for zero.
    """
    terms = RowTerms(torch.empty_like(saved.lse), torch.empty_like(saved.lse))
    given = saved.lse if d_lse is None else d_lse.contiguous()
    tensors = [saved.out, d_out, saved.lse, given, terms.lse2, terms.delta]
    shapes = saved.out.stride()[:3], d_out.stride()[:3]
    aligned = tuple(tensor.data_ptr() % 16 == 0 for tensor in tensors[:4])
    key = (kernels["row_terms"], saved.out.shape, shapes, d_lse is None, saved.out.dtype, saved.out.device, aligned)
    schedule = _schedules.get(key)
    if schedule is None:
        schedule = _schedules[key] = _schedule(kernels["row_terms"], saved.out.shape, shapes, d_lse is not None)
        if len(_schedules) > MAX_SCHEDULES:
            _schedules.popitem(last=False)
    schedule.run(tensors)
    return terms


def _schedule(kernel: Any, shape: torch.Size, shapes: tuple[tuple[int, ...], ...], with_d_lse: bool) -> Schedule:
    batch, heads, q_len, width = shape
    block = next_power(width)
    block_m = ELEMENTS // block
    arguments: list[Any] = []
    for number, strides in zip((OUT, D_OUT), shapes, strict=True):
        arguments += [Pointer(number), *strides]
    arguments += [*map(Pointer, (LSE, D_LSE, LSE2, DELTA)), heads, q_len]
    programs = batch * heads * -(-q_len // block_m)
    constants = width, block, block_m, with_d_lse
    return Schedule([step(kernel, programs, arguments, constants, Tile(block_m, 0, 4, 1), shapes)])
