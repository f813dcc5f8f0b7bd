"""What lies in a cache's directory. Only names that spattn gives are seen; whatever else lies there stays untouched."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spattn.cache.private_files import TEMPORARY

_SHELF = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,8}){1,2}|" + re.escape(TEMPORARY) + r"\w+")


@dataclass(frozen=True)
class Entry:
    """A file of the cache.

    Attributes:
        path: Where it is.
        size: Bytes.
        age: Seconds since it was last used. A clock that went back makes files of the future: those count by distance,
            or they would never grow old.
    """

    path: Path
    size: int
    age: float

    @property
    def is_temporary(self) -> bool:
        """Whether it is unfinished: somebody is writing it, or died doing so."""
        return self.path.name.startswith(TEMPORARY)

    @property
    def is_bad(self) -> bool:
        """Whether it failed its check and was set aside."""
        return self.path.suffix == ".bad"


def entries_of(root: Path | None) -> list[Entry]:
    """All files under `root` that are spattn's, least recently used first; none where it cannot be read."""
    now = time.time()
    found = [
        entry for shelf in _children(root, _SHELF) for path in _children(shelf, _FILE) for entry in _look(path, now)
    ]
    return sorted(found, key=lambda entry: (-entry.age, entry.path))


def _children(directory: Path | None, name: re.Pattern[str]) -> list[Path]:
    if directory is None or directory.is_symlink():
        return []
    try:
        return [directory / child for child in os.listdir(directory) if name.fullmatch(child)]
    except OSError:
        return []


def _look(path: Path, now: float) -> Iterator[Entry]:
    """The entry at `path`; nothing where a neighbour was faster."""
    try:
        status = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Entry(path, status.st_size, abs(now - status.st_mtime))
