"""spattn: write the attention pattern, get the exact kernel.

>>> import spattn
>>> spattn.parse("local(256) | global([0, cls])", cls=7)
Pattern('local(256) | global([0, 7])')

The names are imported when they are first asked for: `import spattn` alone costs next to nothing, and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from spattn._version import __version__

if TYPE_CHECKING:
    from spattn.attend import Attention, attention, compile
    from spattn.call.merge import merge
    from spattn.errors import (
        ArgumentError,
        BindError,
        ConfigError,
        NotDecodableError,
        PatternError,
        SpattnError,
        UnsupportedError,
    )
    from spattn.pattern import Pattern, parse

__all__ = [
    "ArgumentError",
    "Attention",
    "BindError",
    "ConfigError",
    "NotDecodableError",
    "Pattern",
    "PatternError",
    "SpattnError",
    "UnsupportedError",
    "__version__",
    "attention",
    "compile",
    "merge",
    "parse",
]

_HOMES = {
    "Attention": "spattn.attend",
    "attention": "spattn.attend",
    "compile": "spattn.attend",
    "merge": "spattn.call.merge",
    "Pattern": "spattn.pattern",
    "parse": "spattn.pattern",
    "ArgumentError": "spattn.errors",
    "BindError": "spattn.errors",
    "ConfigError": "spattn.errors",
    "NotDecodableError": "spattn.errors",
    "PatternError": "spattn.errors",
    "SpattnError": "spattn.errors",
    "UnsupportedError": "spattn.errors",
}


def __getattr__(name: str) -> object:
    if name in ("config", "nn", "serving"):
        return import_module(f"spattn.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'spattn' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
