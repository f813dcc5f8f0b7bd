"""One launch of a compiled kernel. Triton's own call inspects every argument; here a like call finds its kernel.

Two calls are alike if Triton would specialise them alike: the same dtypes, alignments, strides and sizes. Lengths are
no part of it: the kernels are told not to specialise on them.
"""

from __future__ import annotations

from typing import Any

import torch

from spattn.backends.triton.tiles import Tile

MAX_INT32 = 2**31 - 1
MAX_KERNELS = 4096
_compiled: dict[Any, Any] = {}


def likeness(fixed: list[Any], tensors: list[list[Any]], group_size: int) -> tuple[Any, ...]:
    """What calls must share to run one compiled kernel.

    Args:
        fixed: q, k, v, out and the rest that every kernel has, with their strides.
        tensors: The arguments of each run-time tensor: pointer, strides of batch and head, size and stride of each
            dimension, perhaps the first row; of these numbers Triton compiles in the strides alone.
        group_size: Compiled in where it is 1.
    """
    kinds = [(_kind(one[0]), *one[4::2], max(one[1:]) > MAX_INT32) for one in tensors]
    return fixed[0].device, group_size, *map(_kind, fixed), *kinds


def run(
    kernel: Any,
    programs: int,
    arguments: list[Any],
    alike: tuple[Any, ...],
    constants: tuple[Any, ...],
    tile: Tile,
) -> None:
    """Launches `programs` programs of a kernel on the current stream; `alike` is the likeness of the arguments."""
    key = kernel, alike, constants, tile
    compiled = _compiled.get(key)
    if compiled is not None:
        compiled[programs, 1, 1](*arguments, *constants)
        return
    compiled = kernel[programs,](*arguments, *constants, num_warps=tile.num_warps, num_stages=tile.num_stages)
    if compiled is not None:  # the interpreter compiles nothing
        if len(_compiled) >= MAX_KERNELS:
            _compiled.clear()
        _compiled[key] = compiled


def _kind(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.data_ptr() % 16 == 0
    return argument
