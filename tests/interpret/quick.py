"""Triton's interpreter without work whose result nobody sees: the same answers in a fraction of the time."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from triton import language as tl
from triton.runtime import interpreter

_patched = interpreter._patch_lang
LANGUAGE = SimpleNamespace(__globals__={"tl": tl, "core": tl.core})
"""A function that knows the language by both modules."""


def quicken() -> None:
    """For this process, which interprets kernels.

    A launch gives the language's functions their interpreted meaning, once and in both of its modules; by itself Triton
    looks through them all again whenever a function of a kernel calls another. And sums of integers are not computed a
    second time with 64 bits, in search of an overflow that is reported in a mode for debugging alone.
    """
    interpreter._patch_lang = lambda function: _patched(LANGUAGE)
    interpreter.InterpretedFunction.__call__ = _called
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=builder.options.debug)


def _called(self: Any, *args: Any, **kwargs: Any) -> Any:
    """A function of a kernel calls another."""
    return self.rewrite()(*args, **kwargs)
