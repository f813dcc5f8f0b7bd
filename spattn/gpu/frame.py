"""Where the rows and keys of a launch stand: what the lists that it reads depend on besides tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from spattn.call.positions import Positions
from spattn.call.request import Request
from spattn.expressions.nodes import Documents
from spattn.expressions.width import LONGEST


@dataclass(frozen=True)
class Frame:
    """What lists depend on besides tensors.

    Attributes:
        positions: Where rows and keys stand.
        entries: Of the batch, as the tensors have it.
        num_heads: Of the call.
        device: Where the tensors are.
    """

    positions: Positions
    entries: int
    num_heads: int
    device: torch.device

    @staticmethod
    def of(request: Request) -> Frame:
        """That of a request."""
        return Frame(request.positions, request.q.shape[0], request.num_q_heads, request.q.device)

    @property
    def kv_len(self) -> int:
        """Keys of the whole; no list is cut where each request has a whole of its own."""
        return LONGEST if self.positions.by_request else self.positions.kv_len

    @property
    def queries(self) -> tuple[int, int]:
        """Their positions, half-open."""
        return self.positions.rows

    def sides(self, documents: Documents) -> dict[str, int]:
        """How many indices each side of documents has; on one side all are positions."""
        first, stop = self.queries
        keys = self.positions.kv_len
        return {"queries": stop - first if documents.two_sided else keys, "keys": keys}

    def blocks(self, size: int, *, keys: bool) -> tuple[int, int]:
        """The blocks in which the given keys, or queries, lie, half-open; one at least."""
        begin, end = self.queries
        if keys:
            begin, end = (0, self.kv_len) if self.positions.by_request else self.positions.given
        first = begin // size
        return first, max(-(-end // size), first + 1)
