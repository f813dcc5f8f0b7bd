"""Where the environment wants the cache, and whether it wants one."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

import platformdirs

from spattn.errors import ArgumentError

Mode = Literal["rw", "ro", "off"]

_log = logging.getLogger("spattn.cache")


def mode_from_environment() -> Mode:
    """What `SPATTN_CACHE` says.

    Raises:
        ArgumentError: It is no mode.
    """
    match os.environ.get("SPATTN_CACHE") or "rw":
        case "rw" | "ro" | "off" as mode:
            return mode
        case other:
            raise ArgumentError("E095", f"SPATTN_CACHE is {other!r}", hint="write rw, ro or off")


def root_from_environment() -> Path | None:
    """The directory, or None where there is no home to put one: a container's user often has none."""
    named = os.environ.get("SPATTN_CACHE_DIR")
    try:
        root = Path(named).expanduser().absolute() if named else platformdirs.user_cache_path("spattn", appauthor=False)
    except RuntimeError:
        root = Path()
    if root.is_absolute():
        return root
    _log.warning("the cache is kept in memory, as there is no home directory; SPATTN_CACHE_DIR names another")
    return None
