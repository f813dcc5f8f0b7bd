"""What differs between calls that one launch plan serves: lengths, strides, and the sizes of run-time tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from spattn.call.request import Request
from spattn.codegen.kinds import Kind

Strides = tuple[int, ...]
"""Of batch, head and row."""
Numbers = tuple[tuple[tuple[int, ...], ...], ...]
"""Of each pass, those that go with each of its run-time tensors."""


class Extent(NamedTuple):
    """A call's numbers.

    Attributes:
        q_len, kv_len: Queries and keys, in tokens.
        q_offset: Position of the first query among the keys.
        scale: Factor of the scores.
        strides: Of the kind's operands.
        numbers: Of the run-time tensors.
    """

    q_len: int
    kv_len: int
    q_offset: int
    scale: float
    strides: tuple[Strides, ...]
    numbers: Numbers

    @staticmethod
    def of(request: Request, kind: Kind, tensors: Sequence[torch.Tensor], numbers: Numbers) -> Extent:
        """That of a request whose tensors of the kind are these."""
        strides = tuple(tensor.stride()[:3] for tensor in tensors[: len(kind.operands)])
        return Extent(request.q_len, request.kv_len, request.q_offset, request.scale, strides, numbers)

    @property
    def queries(self) -> tuple[int, int]:
        """Their positions, half-open."""
        return self.q_offset, self.q_offset + self.q_len

    @property
    def keys(self) -> tuple[int, int]:
        """Their positions, half-open."""
        return 0, self.kv_len
