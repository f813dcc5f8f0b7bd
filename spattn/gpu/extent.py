"""What differs between calls that one launch plan serves: lengths, strides, and the sizes of run-time tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from spattn.call.positions import Positions
from spattn.call.request import Request
from spattn.codegen.kernel_specs import KernelSpec

Strides = tuple[int, ...]
"""Of batch, head and row."""
Numbers = tuple[tuple[tuple[int, ...], ...], ...]
"""Of each pass, those that go with each of its run-time tensors."""


class Extent(NamedTuple):
    """A call's numbers.

    Attributes:
        positions: Where rows and keys stand.
        scale: Factor of the scores.
        strides: Of the kind's operands.
        numbers: Of the run-time tensors.
    """

    positions: Positions
    scale: float
    strides: tuple[Strides, ...]
    numbers: Numbers

    @staticmethod
    def of(request: Request, kind: KernelSpec, tensors: Sequence[torch.Tensor], numbers: Numbers) -> Extent:
        """That of a request whose tensors of the kind are these."""
        strides = tuple(tensor.stride()[:3] for tensor in tensors[: len(kind.operands)])
        return Extent(request.positions, request.scale, strides, numbers)

    @property
    def queries(self) -> tuple[int, int]:
        """Their positions, half-open."""
        return self.positions.rows

    @property
    def keys(self) -> tuple[int, int]:
        """Their positions, half-open."""
        return self.positions.given
