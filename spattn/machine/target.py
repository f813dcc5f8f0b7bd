"""GPUs that kernels are compiled for ahead of time."""

from __future__ import annotations

from dataclasses import dataclass

from spattn.errors import UnsupportedError

CUDA = (80, 86, 89, 90, 100, 103, 120)
HIP = ("gfx942", "gfx950")
SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99, "gfx942": 64, "gfx950": 160}
"""Shared memory that a program may have, from the vendors' tables of compute capabilities."""


@dataclass(frozen=True)
class Target:
    """A GPU: `cuda:90`, `hip:gfx942`."""

    backend: str
    architecture: int | str

    @staticmethod
    def of(text: str) -> Target:
        """The GPU that a text names.

        Raises:
            UnsupportedError: E041, there is none of that name.
        """
        backend, _, architecture = text.partition(":")
        if backend == "cuda" and architecture in map(str, CUDA):
            return Target(backend, int(architecture))
        if backend == "hip" and architecture in HIP:
            return Target(backend, architecture)
        known = ", ".join([*(f"cuda:{one}" for one in CUDA), *(f"hip:{one}" for one in HIP)])
        raise UnsupportedError("E041", f"no target is called {text!r}", hint=known)

    def __str__(self) -> str:
        return f"{self.backend}:{self.architecture}"

    @property
    def shared(self) -> int:
        """Bytes of shared memory that a program may have."""
        return SHARED_KIB[self.architecture] * 1024

    @property
    def warp_size(self) -> int:
        """Threads that step together."""
        return 32 if self.backend == "cuda" else 64
