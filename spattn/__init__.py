"""spattn: write the attention pattern, get the exact kernel.

>>> import spattn
>>> spattn.parse("local(256) | global([0, cls])", cls=7)
Pattern('local(256) | global([0, 7])')

The names are imported when they are first asked for: `import spattn` alone costs next to nothing, and no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from spattn._version import __version__

if TYPE_CHECKING:
    from spattn.attention import Attention, attention, compile
    from spattn.errors import ArgumentError, BindError, PatternError, SpattnError, UnsupportedError
    from spattn.pattern import Pattern, parse

__all__ = [
    "ArgumentError",
    "Attention",
    "BindError",
    "Pattern",
    "PatternError",
    "SpattnError",
    "UnsupportedError",
    "__version__",
    "attention",
    "compile",
    "parse",
]

_HOMES = {
    "Attention": "spattn.attention",
    "attention": "spattn.attention",
    "compile": "spattn.attention",
    "Pattern": "spattn.pattern",
    "parse": "spattn.pattern",
    "ArgumentError": "spattn.errors",
    "BindError": "spattn.errors",
    "PatternError": "spattn.errors",
    "SpattnError": "spattn.errors",
    "UnsupportedError": "spattn.errors",
}


class _Package(ModuleType):
    """This package, where `attention` is the function: Python would bind the module of that name over it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'spattn' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
