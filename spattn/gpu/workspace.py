"""Memory that the passes of one call share: partial results, flags; one allocation for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from spattn.gpu.output_allocator import OutputAllocator

ALIGNMENT = 256


class Region(NamedTuple):
    """`length` elements from byte `offset` on."""

    offset: int
    length: int
    dtype: torch.dtype


@dataclass
class Workspace:
    """Regions of one buffer of `size` bytes."""

    regions: list[Region] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    size: int = 0
    _blank: OutputAllocator | None = None

    def add(self, count: int, dtype: torch.dtype) -> int:
        """The number of a new region."""
        self.regions.append(Region(self.size, count, dtype))
        self.offsets.append(self.size)
        self.size += -(-count * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        return len(self.regions) - 1

    def allocate(self, device: torch.device) -> torch.Tensor:
        """A buffer, not initialised."""
        if self._blank is None:
            self._blank = OutputAllocator((self.size,), torch.uint8, device)
        return self._blank()

    def tensors(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """The regions of a buffer."""
        return [buffer[r.offset : r.offset + r.length * r.dtype.itemsize].view(r.dtype) for r in self.regions]

    def addresses(self, buffer: torch.Tensor) -> list[int]:
        """Where they start."""
        base = buffer.data_ptr()
        return [base + offset for offset in self.offsets]
