"""One launch of a kernel. Triton's own call inspects every argument; a step that has run before hands over addresses.

Two calls are alike if Triton would specialise them alike: the same dtypes, alignments, strides and sizes. Lengths are
no part of it: the kernels are told not to specialise on them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import torch

from spattn.cost.tile import Tile, compiler_options

MAX_INT32 = 2**31 - 1
MAX_KERNELS = 4096
_compiled: dict[Any, Any] = {}


@dataclass
class KernelLaunch:
    """A kernel and all its arguments but addresses.

    Attributes:
        kernel: As generated, a Triton function.
        grid: How many programs run, along each of three axes.
        arguments: In the kernel's order, the constants last; what stands at a pointer's place does not matter.
        pointers: (place among the arguments, place among the call's tensors).
        constants: What Triton compiles in.
        alike: What calls must share, besides dtypes and alignments, to run one compiled kernel.
    """

    kernel: Any
    grid: tuple[int, int, int]
    arguments: list[Any]
    pointers: tuple[tuple[int, int], ...]
    constants: tuple[Any, ...]
    tile: Tile
    alike: tuple[Any, ...]
    compiled: Any = None

    def compile(self, tensors: list[torch.Tensor]) -> None:
        """Compiles for tensors of these kinds, and launches nothing."""
        self.kernel.warmup(*self._filled(tensors), grid=self.grid, **self._options(tensors))

    def first(self, tensors: list[torch.Tensor]) -> None:
        """Launches with tensors, whose kinds decide what is compiled."""
        key, arguments = self.key(tensors), self._filled(tensors)
        compiled = _compiled.get(key)
        if compiled is not None:
            compiled[self.grid](*arguments)
        else:
            compiled = self.kernel[self.grid](*arguments, **self._options(tensors))
            if compiled is None:  # the interpreter compiles nothing
                return
            if len(_compiled) >= MAX_KERNELS:
                _compiled.clear()
            _compiled[key] = compiled
        self.compiled = compiled

    def again(self, addresses: list[int], stream: int) -> None:
        """Launches what `first` compiled."""
        arguments = self._filled(addresses)
        compiled = self.compiled
        metadata = compiled.packed_metadata
        compiled.run(*self.grid, stream, compiled.function, metadata, None, None, None, *arguments)

    def key(self, tensors: list[torch.Tensor]) -> tuple[Any, ...]:
        """What calls that run one compiled kernel have in common."""
        kinds = ((t.dtype, t.data_ptr() % 16 == 0) for t in (tensors[number] for _, number in self.pointers))
        schedule = self.tile.num_warps, self.tile.num_stages, self.tile.registers
        return self.kernel, tensors[0].device, self.constants, schedule, self.alike, *kinds

    def _filled(self, pointers: Sequence[Any]) -> list[Any]:
        """The arguments with a call's tensors, or their addresses."""
        arguments = self.arguments.copy()
        for place, number in self.pointers:
            arguments[place] = pointers[number]
        return arguments

    def _options(self, tensors: list[torch.Tensor]) -> dict[str, int]:
        return compiler_options(self.tile, tensors[0].is_cuda and torch.version.hip is None)


def compile_together(steps: Sequence[KernelLaunch], tensors: list[torch.Tensor]) -> None:
    """Compiles side by side what no alike call has: most of a compilation does not hold Python's lock."""
    import triton

    new = [step for step in steps if step.key(tensors) not in _compiled]

    def compile_all() -> None:
        with ThreadPoolExecutor(min(len(new), os.cpu_count() or 1)) as pool, triton.AsyncCompileMode(pool):
            for step in new:
                step.compile(tensors)

    if len(new) > 1:
        # in a context of its own: where a compilation fails, Triton leaves its mode active
        copy_context().run(compile_all)
