"""Dense caches: each request has a row of slots, and position p lies in slot p."""

from __future__ import annotations

import torch
from torch import Tensor

from spattn.errors import ArgumentError
from spattn.serving.storage import Scale, Storage, check_dense

SHAPE = "[batch, num_kv_heads, capacity, head_dim]"


class Dense(Storage):
    """A row of slots for each request; position p lies in slot p.

    Args:
        k: `[batch, num_kv_heads, capacity, head_dim]`, any strides, last dimension dense.
        v: `[batch, num_kv_heads, capacity, v_head_dim]`.
        kv_lens: int32 `[batch]`, on their device: tokens that each request holds, changed in place.
        k_scale: A key is its stored number times this: a number, or float32 `[1]` or `[num_kv_heads]`.
        v_scale: The same of values.

    Raises:
        ArgumentError: E060, tensors do not fit each other.
    """

    def __init__(
        self, k: Tensor, v: Tensor, kv_lens: Tensor, *, k_scale: Scale | None = None, v_scale: Scale | None = None
    ) -> None:
        for name, x in (("k", k), ("v", v)):
            check_dense(name, x, SHAPE)
        super().__init__(k.transpose(1, 2), v.transpose(1, 2), kv_lens, k_scale, v_scale, k.shape[2])
        if kv_lens.shape[0] != k.shape[0]:
            raise ArgumentError("E060", f"kv_lens has {kv_lens.shape[0]} requests, and k {k.shape[0]}")

    def places(self, request: int | Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks and slots of positions."""
        return torch.zeros_like(positions) + request, positions

    def read(self, request: int, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """Views: all positions are held, in order."""
        return self.keys[request, first:stop], self.values[request, first:stop]
