"""One launch of a kernel. Triton's own call inspects every argument; a step that has run before hands over addresses.

Two calls are alike if Triton would specialise them alike: the same dtypes, alignments, strides and sizes. Lengths are
no part of it: the kernels are told not to specialise on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from spattn.backends.triton.tiles import Tile

MAX_INT32 = 2**31 - 1
MAX_KERNELS = 4096
_compiled: dict[Any, Any] = {}


@dataclass
class Step:
    """A kernel and all its arguments but addresses.

    Attributes:
        kernel: As generated, a Triton function.
        programs: How many run.
        arguments: In the kernel's order; what stands at a pointer's place does not matter.
        pointers: (place among the arguments, place among the call's tensors).
        constants: What Triton compiles in.
        alike: What calls must share, besides dtypes and alignments, to run one compiled kernel.
    """

    kernel: Any
    programs: int
    arguments: list[Any]
    pointers: tuple[tuple[int, int], ...]
    constants: tuple[Any, ...]
    tile: Tile
    alike: tuple[Any, ...]
    compiled: Any = None

    def first(self, tensors: list[torch.Tensor]) -> None:
        """Launches with tensors, whose kinds decide what is compiled."""
        arguments = self.arguments.copy()
        for place, number in self.pointers:
            arguments[place] = tensors[number]
        key = self._key(tensors)
        compiled = _compiled.get(key)
        if compiled is None:
            options = {"num_warps": self.tile.num_warps, "num_stages": self.tile.num_stages}
            if self.tile.registers and tensors[0].is_cuda and torch.version.hip is None:
                options["maxnreg"] = self.tile.registers
            compiled = self.kernel[self.programs,](*arguments, *self.constants, **options)
            if compiled is None:  # the interpreter compiles nothing
                return
            if len(_compiled) >= MAX_KERNELS:
                _compiled.clear()
            _compiled[key] = compiled
        else:
            compiled[self.programs, 1, 1](*arguments, *self.constants)
        self.arguments = [*self.arguments, *self.constants]
        self.compiled = compiled

    def again(self, addresses: list[int], stream: int) -> None:
        """Launches what `first` compiled."""
        arguments = self.arguments.copy()
        for place, number in self.pointers:
            arguments[place] = addresses[number]
        compiled = self.compiled
        metadata = compiled.packed_metadata
        compiled.run(self.programs, 1, 1, stream, compiled.function, metadata, None, None, None, *arguments)

    def _key(self, tensors: list[torch.Tensor]) -> tuple[Any, ...]:
        kinds = ((t.dtype, t.data_ptr() % 16 == 0) for t in (tensors[number] for _, number in self.pointers))
        schedule = self.tile.num_warps, self.tile.num_stages, self.tile.registers
        return self.kernel, tensors[0].device, self.constants, schedule, self.alike, *kinds
