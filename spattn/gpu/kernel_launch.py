"""One launch of a kernel. Triton's own call inspects every argument; a kernel that has run before is handed addresses.

Two calls are alike if Triton would specialise them alike: the same dtypes, alignments, and divisibility of strides.
Lengths are no part of it: the kernels are told not to specialise on them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import torch

from spattn.codegen.languages import LANGUAGES
from spattn.codegen.tile import Tile

MAX_INT32 = 2**31 - 1
MAX_KERNELS = 4096
_compiled: dict[Any, Any] = {}


@dataclass(frozen=True)
class Pointer:
    """The address of a call's tensor of that number."""

    number: int


@dataclass
class Kernel:
    """A generated kernel with its constants.

    Attributes:
        function: As generated, a function of its language.
        constants: What is compiled in, the last of the arguments.
        tile: How it is cut and scheduled.
        alike: What calls must share, besides dtypes and alignments, to run one compiled kernel.
        pointers: (place among the arguments, place among the call's tensors), once it has been launched.
        compiled: What has run, to be run again.
    """

    function: Any
    constants: tuple[Any, ...]
    tile: Tile
    alike: tuple[Any, ...]
    pointers: tuple[tuple[int, int], ...] = ()
    compiled: Any = None

    def launch(self, grid: tuple[int, int, int], arguments: Sequence[Any]) -> KernelLaunch:
        """A launch of it.

        Args:
            grid: How many programs run, along each of three axes.
            arguments: All but the constants, in the kernel's order; `Pointer` for a tensor, or 0 where it is known.
        """
        if not self.pointers:
            self.pointers = tuple((i, one.number) for i, one in enumerate(arguments) if isinstance(one, Pointer))
            arguments = [0 if isinstance(one, Pointer) else one for one in arguments]
        return KernelLaunch(self, grid, [*arguments, *self.constants])


@dataclass(frozen=True)
class KernelLaunch:
    """A kernel and all its arguments but addresses.

    Attributes:
        kernel: What is launched.
        grid: How many programs run, along each of three axes.
        arguments: In the kernel's order; what stands at a pointer's place does not matter.
    """

    kernel: Kernel
    grid: tuple[int, int, int]
    arguments: list[Any]

    def compile(self, tensors: list[torch.Tensor]) -> None:
        """Compiles for tensors of these kinds, and launches nothing."""
        self.kernel.function.warmup(*self._filled(tensors), grid=self.grid, **self._options(tensors))

    def first(self, tensors: list[torch.Tensor]) -> None:
        """Launches with tensors, whose kinds decide what is compiled."""
        key, arguments = self.key(tensors), self._filled(tensors)
        compiled = _compiled.get(key)
        if compiled is not None:
            compiled[self.grid](*arguments)
        else:
            compiled = self.kernel.function[self.grid](*arguments, **self._options(tensors))
            if compiled is None:  # the interpreter compiles nothing
                return
            if len(_compiled) >= MAX_KERNELS:
                _compiled.clear()
            _compiled[key] = compiled
        self.kernel.compiled = compiled

    def again(self, addresses: list[int], stream: int) -> None:
        """Launches what `first` compiled."""
        arguments = self.arguments.copy()
        for place, number in self.kernel.pointers:
            arguments[place] = addresses[number]
        compiled = self.kernel.compiled
        metadata = compiled.packed_metadata
        compiled.run(*self.grid, stream, compiled.function, metadata, None, None, None, *arguments)

    def key(self, tensors: list[torch.Tensor]) -> tuple[Any, ...]:
        """What calls that run one compiled kernel have in common."""
        kernel = self.kernel
        kinds = ((t.dtype, t.data_ptr() % 16 == 0) for t in (tensors[number] for _, number in kernel.pointers))
        schedule = kernel.tile.language, kernel.tile.num_warps, kernel.tile.num_stages, kernel.tile.registers
        return kernel.function, tensors[0].device, kernel.constants, schedule, kernel.alike, *kinds

    def _filled(self, tensors: Sequence[torch.Tensor]) -> list[Any]:
        """The arguments with a call's tensors."""
        arguments = self.arguments.copy()
        for place, number in self.kernel.pointers:
            arguments[place] = tensors[number]
        return arguments

    def _options(self, tensors: list[torch.Tensor]) -> dict[str, int]:
        tile, cuda = self.kernel.tile, tensors[0].is_cuda and torch.version.hip is None
        return LANGUAGES[tile.language].options(tile, cuda=cuda)


def kind_of(number: int) -> int:
    """What Triton may compile in of an integer: that it is 1, divisible by 16, or needs 64 bits."""
    if number == 1:
        return 1
    return (0 if number % 16 == 0 else 2) + (4 if number > MAX_INT32 else 0)


def compile_together(launches: Sequence[KernelLaunch], tensors: list[torch.Tensor]) -> None:
    """Compiles side by side what no alike call has: most of a compilation does not hold Python's lock."""
    import triton

    new = [one for one in launches if one.key(tensors) not in _compiled]

    def compile_all() -> None:
        with ThreadPoolExecutor(min(len(new), os.cpu_count() or 1)) as pool, triton.AsyncCompileMode(pool):
            for one in new:
                one.compile(tensors)

    if len(new) > 1:
        # in a context of its own: where a compilation fails, Triton leaves its mode active
        copy_context().run(compile_all)
