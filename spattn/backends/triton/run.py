"""One launch of a compiled kernel. Triton's own call inspects every argument; here a like call finds its kernel.

Two calls are alike if Triton would specialise them alike: the same dtypes, alignments, strides and sizes. Lengths are
no part of it: the kernels are told not to specialise on them.
"""

from __future__ import annotations

from typing import Any

import torch

from spattn.backends.triton.tiles import Tile
from spattn.codegen.kernel import NUMBERS

UNSPECIALISED = len(NUMBERS)
MAX_KERNELS = 4096
_compiled: dict[Any, Any] = {}


def likeness(arguments: list[Any]) -> tuple[Any, ...]:
    """What calls with these arguments must share to run one compiled kernel."""
    # the device of q; and of the numbers only a group size of 1 is compiled in
    return arguments[0].device, arguments[1 - UNSPECIALISED], *map(_kind, arguments[:-UNSPECIALISED])


def run(
    kernel: Any,
    programs: int,
    arguments: list[Any],
    alike: tuple[Any, ...],
    constants: tuple[Any, ...],
    tile: Tile,
) -> None:
    """Launches `programs` programs of a kernel on the current stream; `alike` is the arguments' likeness."""
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
