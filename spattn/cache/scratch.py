"""A private directory that goes with the process: where files live that no cache keeps."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path


def scratch_directory() -> Path:
    """This process's directory, mode 0700, under a name that nobody can guess.

    Raises:
        OSError: There is no directory for temporary files.
    """
    return _scratch_of(os.getpid())


@cache
def _scratch_of(pid: int) -> Path:
    """A forked child asks under its own pid: it must neither share nor remove its parent's directory."""
    directory = Path(tempfile.mkdtemp(prefix="spattn-")).resolve()
    atexit.register(_remove, directory, pid)
    return directory


def _remove(directory: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)
