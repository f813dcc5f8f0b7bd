"""What a training is: the YAML file, field by field."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml  # type: ignore[import-untyped,unused-ignore]


@dataclass(frozen=True)
class Config:
    """A model, and a way to train it that is the same for all its attentions."""

    pattern: str  # the keys that a query sees; `layers(..)` asks for the number of the block
    attention: list[str]  # what is compared: dense, spattn, flex
    width: int  # channels
    depth: int  # blocks
    heads: int
    length: int  # of a sequence, in bytes
    batch: int  # sequences a step
    steps: int
    rate: float  # the highest learning rate
    validate_every: int  # steps
    windows: int  # sequences that a validation reads, at most
    flex: dict[str, int] = field(default_factory=dict)  # the pattern as FlexAttention gets it: window, stride
    text: str = "sqlite.txt"  # beside the YAML file
    device: str = "cpu"  # or cuda
    seed: int = 0  # of the weights and of the order of the data

    @classmethod
    def read(cls, file: Path) -> Config:
        """The file's fields; one too many or too few is a TypeError that names it."""
        return cls(**yaml.safe_load(file.read_text()))
