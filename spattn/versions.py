"""Which versions of torch and Triton run the kernels: the oldest that is supported, the newest that the tests know."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

Numbers = tuple[int, int]


@dataclass(frozen=True)
class Range:
    """Versions from `oldest` to those that begin with `newest`."""

    oldest: Numbers
    newest: Numbers

    def __contains__(self, version: str) -> bool:
        return self.oldest <= numbers(version) <= self.newest

    def __str__(self) -> str:
        return f"{self.oldest[0]}.{self.oldest[1]} to {self.newest[0]}.{self.newest[1]}"

    @property
    def requirement(self) -> str:
        """As pip reads it."""
        return f">={self.oldest[0]}.{self.oldest[1]},<{self.newest[0]}.{self.newest[1] + 1}"


TESTED = {"torch": Range((2, 11), (2, 15)), "triton": Range((3, 6), (3, 9))}


def untested(name: str, version: str) -> str | None:
    """Why a version is none that the tests know, as a sentence; None if it is one."""
    known = TESTED[name]
    if version in known:
        return None
    return f"{name} {version} is not one of the versions that spattn is tested with, {known}"


def cure(name: str) -> str:
    """The command that brings a version that is tested."""
    return f"pip install '{name}{TESTED[name].requirement}'"


def installed(name: str) -> str | None:
    """The version of a library, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> Numbers:
    """(major, minor)."""
    parts = [*version.split("."), "0"]
    digits = ["".join(c for c in part if c.isdigit()) or "0" for part in parts[:2]]
    return int(digits[0]), int(digits[1])
