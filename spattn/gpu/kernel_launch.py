"""One launch of a kernel. Triton's own call inspects every argument; a kernel that has run before is handed addresses.

Two calls are alike if Triton would specialise them alike: the same dtypes, alignments, and divisibility of strides.
Lengths are no part of it: the kernels are told not to specialise on them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from spattn.codegen.languages import LANGUAGES
from spattn.codegen.signature import Signature
from spattn.codegen.tile import Tile

MAX_INT32 = 2**31 - 1
MAX_KERNELS = 4096
_compiled: dict[Any, Any] = {}


@dataclass
class Kernel:
    """A generated kernel with all that its launches share.

    Attributes:
        function: As generated, a function of its language.
        template: The arguments in order, 0 for what a launch fills in.
        pointers: (place among the arguments, place among the call's tensors).
        numbers: (place among the arguments, name) of what differs between launches.
        constants: What is compiled in.
        tile: How it is cut and scheduled.
        alike: What else calls must share, besides dtypes and alignments, to run one compiled kernel.
        compiled: What has run, to be run again.
    """

    function: Any
    template: list[Any]
    pointers: tuple[tuple[int, int], ...]
    numbers: tuple[tuple[int, str], ...]
    constants: tuple[Any, ...]
    tile: Tile
    alike: tuple[Any, ...]
    compiled: Any = None

    @staticmethod
    def of(
        function: Any,
        signature: Signature,
        fixed: Mapping[str, Any],
        pointers: Mapping[str, int],
        tile: Tile,
        alike: tuple[Any, ...],
    ) -> Kernel:
        """A kernel whose arguments are given by name.

        Args:
            function: As generated.
            signature: Its arguments.
            fixed: Values of those that all launches share.
            pointers: Places among the call's tensors.
            tile: How it is cut and scheduled.
            alike: What else decides what is compiled.
        """
        arguments = signature.arguments
        return Kernel(
            function,
            [0 if one.what == "tensor" or one.per_call else fixed[one.name] for one in arguments],
            tuple((i, pointers[one.name]) for i, one in enumerate(arguments) if one.what == "tensor"),
            tuple((i, one.name) for i, one in enumerate(arguments) if one.per_call),
            tuple(fixed[one.name] for one in arguments if one.what == "constexpr"),
            tile,
            alike,
        )

    def launch(self, grid: tuple[int, int, int], values: Mapping[str, Any]) -> KernelLaunch:
        """A launch of it.

        Args:
            grid: How many programs run, along each of three axes.
            values: What differs between launches, by name.
        """
        arguments = self.template.copy()
        for place, name in self.numbers:
            arguments[place] = values[name]
        return KernelLaunch(self, grid, arguments)


class KernelLaunch(NamedTuple):
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
