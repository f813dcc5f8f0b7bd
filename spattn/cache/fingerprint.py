"""The versions that may change what is generated or measured, as a short name."""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from importlib import metadata

from spattn._version import __version__

_SCHEMA = 1
_LIBRARIES = ("islpy", "jinja2", "numpy", "sympy", "torch", "triton")


@cache
def fingerprint() -> str:
    """Sixteen hexadecimal digits: the same for the same spattn, Python and libraries."""
    versions = {name: _installed(name) for name in _LIBRARIES}
    versions |= {"schema": str(_SCHEMA), "spattn": __version__, "python": "{}.{}".format(*sys.version_info)}
    return hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:16]


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
