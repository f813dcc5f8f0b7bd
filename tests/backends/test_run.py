"""Kernels that compile side by side."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest

from spattn.gpu.kernel_launch import compile_together


class Compiling:
    """A step whose compilation is what it is told."""

    def __init__(self, compilation: Any) -> None:
        self.compilation, self.done = compilation, False

    def key(self, tensors: object) -> object:
        return self

    def compile(self, tensors: object) -> None:
        from triton.runtime import _async_compile

        mode = _async_compile.active_mode.get()
        assert mode is not None
        # Triton 3.9 also asks what to do where it fails
        hooks = len(signature(mode.submit).parameters) - 2
        mode.submit(self, self.compilation, *(self.finish, self.forget)[:hooks])

    def finish(self, found: object) -> None:
        self.done = True

    def forget(self, found: object) -> None:
        """Nothing was kept."""


def test_a_compilation_that_fails_leaves_later_ones_alone() -> None:
    def failing() -> None:
        raise ValueError("no such instruction")

    broken: list[Any] = [Compiling(failing), Compiling(failing)]
    steps: list[Any] = [Compiling(dict), Compiling(dict)]
    with pytest.raises(ValueError, match="instruction"):
        compile_together(broken, [])
    compile_together(steps, [])
    assert all(step.done for step in steps)
