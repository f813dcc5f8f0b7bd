"""The cache of generated source and of JSON records.

A text is filed under the digest of itself, so that to read is to compare: a torn or tampered file is seen and written
anew, and processes that race write the same bytes, which is why there are no locks. A record carries its digest inside.

    root/                            0700, ours
        3f0c9a11d2b47e65/            one shelf for each set of versions, so that two installations never meet
            9a...e1.py               a text; the name is the SHA-256 of the contents
            07...4c.json             a record; the name is its key
            07...4c.json.bad         what failed its check

Where the root cannot be trusted or written, a private directory that goes with the process takes its place, and one
line on stderr says so: a cache may cost time, never an answer. The digests guard against accidents, not against whoever
may write as this user.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from spattn.cache.environment import Mode, mode_from_environment, root_from_environment
from spattn.cache.fingerprint import fingerprint
from spattn.cache.private_files import claim_directory, read_own, set_aside, write_whole
from spattn.cache.records import digest, record_name, seal, unseal
from spattn.cache.scratch import scratch_directory
from spattn.cache.shelves import Entry, entries_of

MAX_BYTES = 1 << 30
MAX_AGE = 30 * 86400.0
"""Seconds since an entry was last used."""

_GRACE = 3600.0
_RECORD_LIMIT = 1 << 24
_SUFFIX = re.compile(r"\.(?!json|bad)[a-z0-9]{1,8}")
_log = logging.getLogger("spattn.cache")


@dataclass(eq=False)
class Cache:
    """Generated source and JSON records that outlive a process.

    Attributes:
        root: The directory, or None for no directory at all.
        mode: `rw`; `ro`, which reads but leaves the root as it is; `off`, which does not look at it.
    """

    root: Path | None
    mode: Mode = "rw"
    _private: dict[int, Path] = field(default_factory=dict, init=False, repr=False)
    _said: set[str] = field(default_factory=set, init=False, repr=False)

    def publish(self, text: str, suffix: str = ".py") -> Path:
        """The path of a file that holds exactly `text`.

        Run the text you hold under that name, `exec(compile(text, path, "exec"), ..)`, rather than import the file: an
        import would trust a `.pyc` beside it that nobody has checked.

        Raises:
            ValueError: `suffix` is not a dot and up to eight letters and digits.
            OSError: Not even a temporary directory can be written.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise ValueError(f"not a suffix for a text: {suffix!r}")
        return self._file(digest(text) + suffix, text.encode())

    def read_json(self, key: str) -> dict[str, Any] | None:
        """The record filed under `key`, a `digest`; None where there is none or it fails its check."""
        name = record_name(key)
        for shelf in self._shelves():
            record = self._record(shelf / name, key)
            if record is not None:
                return record
        return None

    def write_json(self, key: str, data: dict[str, Any]) -> None:
        """File `data` under `key`; the last writer wins.

        Raises:
            ValueError: `key` is no digest.
            TypeError: `data` is no JSON.
        """
        self._file(record_name(key), seal(key, data))

    def entries(self) -> list[Entry]:
        """What lies in the root: every version's entries, least recently used first, no leftovers."""
        return [entry for entry in entries_of(self.root) if not (entry.is_temporary or entry.is_bad)]

    def verify(self) -> list[Path]:
        """The entries that are not what their names say; in mode `rw` they are set aside too."""
        bad = [entry.path for entry in self.entries() if not _sound(entry.path)]
        for path in bad if self.mode == "rw" else ():
            with contextlib.suppress(OSError):
                set_aside(path)
                path.unlink()
        return bad

    def prune(self, max_bytes: int = MAX_BYTES, max_age: float = MAX_AGE) -> list[Path]:
        """Remove dead writers' files, entries unused for `max_age` seconds, and the oldest beyond `max_bytes`.

        Nothing younger than an hour goes: another process may have published it and not yet read it.
        """
        removed, total = [], 0
        for entry in reversed(entries_of(self.root)):
            wanted = not entry.is_temporary and entry.age <= max_age and total + entry.size <= max_bytes
            if wanted or entry.age <= _GRACE:
                total += entry.size
            else:
                removed.append(entry.path)
        return self._remove(removed)

    def clear(self) -> list[Path]:
        """Remove every entry and leftover, and nothing that is not ours."""
        return self._remove([entry.path for entry in entries_of(self.root)])

    def _remove(self, paths: list[Path]) -> list[Path]:
        removed = []
        for path in paths if self.mode == "rw" else ():
            with contextlib.suppress(OSError):
                path.unlink()
                removed.append(path)
        for shelf in {path.parent for path in removed}:
            with contextlib.suppress(OSError):
                shelf.rmdir()
        return removed

    def _file(self, name: str, payload: bytes) -> Path:
        """A file `name` that holds `payload`: in the root if that can be, else beside the process."""
        try:
            shelf = self._shelf()
            if shelf and (self.mode == "rw" or _compare(shelf / name, payload) == "same"):
                return self._place(shelf / name, payload)
        except OSError as error:
            self._warn(error)
        return self._place(self._scratch() / name, payload)

    def _place(self, path: Path, payload: bytes) -> Path:
        """`path`, once it holds `payload`."""
        found = _compare(path, payload)
        if found == "same":
            return self._touch(path)
        if found == "other" and path.suffix != ".json":  # another record under a key is no fault
            self._say("set aside", "a cached file was not what its name says and is written anew: %s", path)
            set_aside(path)
        write_whole(path, payload)
        self._prune_once()
        return path

    def _record(self, path: Path, key: str) -> dict[str, Any] | None:
        try:
            data = unseal(key, read_own(path, _RECORD_LIMIT))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            self._say("set aside", "a cached record fails its check and is set aside: %s", path)
            if self.mode == "rw":
                with contextlib.suppress(OSError):
                    set_aside(path)
                    path.unlink()
            return None
        self._touch(path)
        return data

    def _shelves(self) -> list[Path]:
        """Where a record may lie; what this process could not file in the root is the newer."""
        shelves = [self._private.get(os.getpid())]
        try:
            shelves.append(self._shelf())
        except OSError as error:
            self._warn(error)
        return [shelf for shelf in shelves if shelf]

    def _shelf(self) -> Path | None:
        """This installation's directory in the root, checked anew each time: rights change while a process lives."""
        if self.root is None or self.mode == "off":
            return None
        shelf = self.root / fingerprint()
        for directory in (self.root, shelf):
            claim_directory(directory, create=self.mode == "rw")
        return shelf

    def _scratch(self) -> Path:
        """This cache's own directory beside the process; a forked child has another."""
        directory = self._private.setdefault(os.getpid(), scratch_directory() / secrets.token_hex(8))
        claim_directory(directory, create=True)
        return directory

    def _touch(self, path: Path) -> Path:
        """Note that an entry was used; once an hour is enough, and a clock that ran ahead is set right."""
        if self.mode == "rw":
            with contextlib.suppress(OSError):
                if abs(time.time() - os.lstat(path).st_mtime) > _GRACE:
                    os.utime(path)
        return path

    def _prune_once(self) -> None:
        if "pruned" not in self._said:
            self._said.add("pruned")
            self.prune()

    def _warn(self, error: OSError) -> None:
        """Say once why the root is not used; that a root only read does not exist yet is no news."""
        if not (self.mode == "ro" and isinstance(error, FileNotFoundError)):
            self._say("unusable", "the cache is kept in memory, as %s cannot be used: %s", self.root, error)

    def _say(self, what: str, message: str, *details: object) -> None:
        if what not in self._said:
            self._said.add(what)
            _log.warning(message, *details)


@cache
def default_cache() -> Cache:
    """This user's cache, from the environment as it is at the first call.

    `SPATTN_CACHE_DIR` names the directory, `SPATTN_CACHE` is `rw`, `ro` or `off`. On a cluster, let the directory be
    local to the node.
    """
    return Cache(root_from_environment(), mode_from_environment())


def _compare(path: Path, payload: bytes) -> Literal["absent", "same", "other"]:
    try:
        return "same" if read_own(path, len(payload) + 1) == payload else "other"
    except FileNotFoundError:
        return "absent"
    except OSError:
        return "other"


def _sound(path: Path) -> bool:
    try:
        if path.suffix == ".json":
            unseal(path.stem, read_own(path, _RECORD_LIMIT))
            return True
        return hashlib.sha256(read_own(path, -1)).hexdigest() == path.stem
    except FileNotFoundError:  # a neighbour has removed it meanwhile
        return True
    except (OSError, ValueError, RecursionError):
        return False
