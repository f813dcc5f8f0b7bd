"""What one call asks of a backend, checked: shapes, scale, offset and run-time tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Request:
    """q `[batch, num_q_heads, q_len, head_dim]`, k `[batch, num_kv_heads, kv_len, head_dim]`, v likewise with its own width.

    Attributes:
        scale: Factor of the scores.
        q_offset: Position of the first query among the keys.
        tensors: The pattern's run-time tensors, on q's device.
        need_lse: Is the log-sum-exp wanted too?
        tf32: May float32 products use TF32?
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float
    q_offset: int
    tensors: Mapping[str, torch.Tensor]
    need_lse: bool = False
    tf32: bool = False

    @property
    def batch_size(self) -> int:
        """Batch entries."""
        return self.q.shape[0]

    @property
    def num_q_heads(self) -> int:
        """Query heads."""
        return self.q.shape[1]

    @property
    def q_len(self) -> int:
        """Queries, in tokens."""
        return self.q.shape[2]

    @property
    def kv_len(self) -> int:
        """Keys, in tokens."""
        return self.k.shape[2]
