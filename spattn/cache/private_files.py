"""Files that are whole or absent, in directories that nobody else can write.

The one thing to know: each function does what it says or raises `OSError`, whatever the disk, the rights or a neighbour
did to it. What to do then is the caller's matter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

TEMPORARY = ".tmp-"
"""How the names of unfinished files begin."""

_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def claim_directory(directory: Path, *, create: bool) -> None:
    """Make sure that `directory` is ours alone to write.

    Args:
        directory: An absolute path.
        create: Whether to make it, and its missing parents, with mode 0700.

    Raises:
        OSError: It is missing, no directory, a symbolic link, another user's, or writable by others; or one of its
            parents would let anyone put another directory in its place.
    """
    if create:
        for missing in reversed([path for path in (directory, *directory.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
    if reason := _distrust(os.lstat(directory)):
        raise PermissionError(errno.EPERM, reason, str(directory))
    for parent in directory.parents:
        if _replaceable(os.stat(parent).st_mode):
            raise PermissionError(errno.EPERM, "a parent of the cache is writable by anyone", str(parent))


def _distrust(status: os.stat_result) -> str | None:
    """Why a directory of this status must not be trusted."""
    if stat.S_ISLNK(status.st_mode):
        return "the directory is a symbolic link"
    if not stat.S_ISDIR(status.st_mode):
        return "this is not a directory"
    if not _ours(status):
        return "the directory belongs to another user"
    if os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "the directory is writable by others"
    return None


def _ours(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def _replaceable(mode: int) -> bool:
    """Anyone may rename what stands in a directory of this mode; the sticky bit, as on a shared /tmp, forbids it."""
    return os.name == "posix" and bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def read_own(path: Path, limit: int) -> bytes:
    """The first `limit` bytes of a regular file of ours; no link is followed, no pipe waited for.

    Raises:
        OSError: There is no such file, or it is something else.
    """
    descriptor = os.open(path, _READ)
    try:
        status = os.fstat(descriptor)
        if not (stat.S_ISREG(status.st_mode) and _ours(status)):
            raise PermissionError(errno.EPERM, "not a file of ours", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def write_whole(path: Path, payload: bytes) -> None:
    """Put `payload` at `path` at once: a reader sees what stood there before, or all of it, also after a power cut.

    Raises:
        OSError: The disk is full, the directory is gone or not writable; `path` is as it was.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename last; where directories cannot be synced, the file system answers for it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def set_aside(path: Path) -> None:
    """Keep what stands at `path` as `path.bad`, for a human to look at.

    A second link leaves the first in place: a neighbour who has just mended the file would else find it gone between
    writing and reading. What cannot be linked, a directory say, is renamed.

    Raises:
        OSError: Neither worked.
    """
    bad = path.with_name(path.name + ".bad")
    with contextlib.suppress(OSError):
        os.unlink(bad)
    try:
        os.link(path, bad, follow_symlinks=False)
    except (FileExistsError, FileNotFoundError):  # a neighbour is at it too
        return
    except (OSError, NotImplementedError):
        os.replace(path, bad)
