"""Memory that the passes of one call share: partial results, flags; one allocation for all."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from spattn.gpu.output_allocator import OutputAllocator

ALIGNMENT = 256


@dataclass
class Workspace:
    """Regions of one buffer of `size` bytes, each of so many elements of a dtype, from an offset in bytes on."""

    lengths: list[int] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    size: int = 0
    _blank: OutputAllocator | None = None

    def add(self, length: int, dtype: torch.dtype) -> int:
        """The number of a new region."""
        self.lengths.append(length)
        self.dtypes.append(dtype)
        self.offsets.append(self.size)
        self.size += -(-length * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        return len(self.offsets) - 1

    def allocate(self, device: torch.device) -> torch.Tensor:
        """A buffer, not initialised."""
        if self._blank is None:
            self._blank = OutputAllocator((self.size,), torch.uint8, device, (1,))
        return self._blank()

    def tensors(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """The regions of a buffer."""
        regions = zip(self.offsets, self.lengths, self.dtypes, strict=True)
        return [buffer[at : at + length * dtype.itemsize].view(dtype) for at, length, dtype in regions]

    def addresses(self, buffer: torch.Tensor) -> list[int]:
        """Where they start."""
        base = buffer.data_ptr()
        return [base + offset for offset in self.offsets]
