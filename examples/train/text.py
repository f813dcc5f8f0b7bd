"""The bytes of a text as sequences: the same ones in the same order for everyone who asks with the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor


class Text:
    """A text to learn; its last tenth is kept for validation.

    Raises:
        ValueError: It is too short for sequences of `length` bytes.
    """

    def __init__(self, file: Path, length: int) -> None:
        text = torch.tensor(list(file.read_bytes()))
        self.length = length
        self.learned, self.kept = text.tensor_split([len(text) * 9 // 10])
        if len(self.kept) <= length:
            raise ValueError(f"{file.name}: {len(text)} bytes are too few to validate sequences of {length}")

    def batches(self, size: int, seed: int) -> Iterator[Tensor]:
        """Without end: `[size, length + 1]`, sequences from random places."""
        places = torch.Generator().manual_seed(seed)
        while True:
            starts = torch.randint(len(self.learned) - self.length, (size,), generator=places)
            yield torch.stack([self.learned[start : start + self.length + 1] for start in starts.tolist()])

    def validation(self, windows: int) -> list[Tensor]:
        """At most so many sequences, `[1, length + 1]` each, one after the other."""
        starts = range(0, len(self.kept) - self.length, self.length)
        return [self.kept[None, start : start + self.length + 1] for start in starts[:windows]]
