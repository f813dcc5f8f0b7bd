"""A decode step as kernels are given it: the sizes that it may have, its tensors, and the cache that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from spattn.call.positions import Positions
from spattn.call.shape import Shape, dtype_name

BY_REQUEST = "q_lens", "kv_lens"  # what each request has for itself


class Cache(Protocol):
    """Where keys and values are, as kernels read it: element (block, slot, head) of two tensors."""

    @property
    def keys(self) -> torch.Tensor:
        """`[blocks, slots, num_kv_heads, head_dim]`, any strides, last dimension dense."""
        ...

    @property
    def values(self) -> torch.Tensor:
        """The same of v_head_dim."""
        ...

    @property
    def kv_lens(self) -> torch.Tensor:
        """int32 `[batch]`, keys of each request."""
        ...

    @property
    def capacity(self) -> int:
        """Keys of a request, at most."""
        ...

    @property
    def page_size(self) -> int:
        """Slots of a block where a table lists the blocks of each request; 0 where a request is a block."""
        ...

    @property
    def table(self) -> torch.Tensor | None:
        """int32, the blocks of each request: a row for each, or one list behind the other."""
        ...

    @property
    def table_starts(self) -> torch.Tensor | None:
        """int32 `[batch + 1]`, where those of each request begin, where they lie one behind the other."""
        ...

    @property
    def window(self) -> int:
        """Slots of a ring that positions take in turn; 0 where each position has a slot."""
        ...

    @property
    def window_base(self) -> int:
        """The first of these."""
        ...

    @property
    def kept(self) -> torch.Tensor | None:
        """int32 `[pieces, 5]` of a ring: step, residue, first, count and slot of keys that have slots for ever."""
        ...

    @property
    def k_scale(self) -> torch.Tensor | None:
        """float32 `[1]` or `[num_kv_heads]`, the factor of what is stored."""
        ...

    @property
    def v_scale(self) -> torch.Tensor | None:
        """The same of values."""
        ...


@dataclass(frozen=True)
class StepSizes:
    """What a decoder is made for.

    Attributes:
        num_q_heads, num_kv_heads: Heads.
        head_dim, v_head_dim: Their widths.
        max_batch: Requests of a step, at most.
        max_kv_len: Keys of a request, at most.
        max_new: Rows of a request in a step, at most.
        dtype: Of q and out.
        device: Where all is.
        tf32: May float32 products use TF32?
    """

    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    max_batch: int
    max_kv_len: int
    max_new: int
    dtype: torch.dtype
    device: torch.device
    tf32: bool = False

    @staticmethod
    def named(
        num_q_heads: int,
        num_kv_heads: int,
        head_dim: int,
        v_head_dim: int,
        max_batch: int,
        max_kv_len: int,
        max_new: int,
        dtype: str,
        device: str,
    ) -> StepSizes:
        """The same, of a dtype and a device by their names."""
        kind: torch.dtype = getattr(torch, dtype)
        sizes = num_q_heads, num_kv_heads, head_dim, v_head_dim, max_batch, max_kv_len, max_new
        return StepSizes(*sizes, kind, torch.device(device))

    @property
    def group_size(self) -> int:
        """Query heads that share one of k and v."""
        return self.num_q_heads // self.num_kv_heads

    @property
    def shape(self) -> Shape:
        """The greatest step as a call."""
        return Shape(
            batch_size=self.max_batch,
            num_q_heads=self.num_q_heads,
            num_kv_heads=self.num_kv_heads,
            q_len=self.max_new,
            kv_len=self.max_kv_len,
            q_offset=self.max_kv_len - self.max_new,
            k_offset=0,
            num_keys=self.max_kv_len,
            head_dim=self.head_dim,
            v_head_dim=self.v_head_dim,
            dtype=dtype_name(self.dtype),
            tf32=self.tf32,
        )

    @property
    def positions(self) -> Positions:
        """Where rows and keys stand: each request's own."""
        return Positions(0, self.max_new, 0, self.max_kv_len, self.max_kv_len, BY_REQUEST)


@dataclass(frozen=True)
class StepTensors:
    """The tensors of a step.

    Attributes:
        q: `[batch, num_q_heads, q_len, head_dim]`, or packed `[1, num_q_heads, tokens, head_dim]`.
        out: The same of v_head_dim.
        lse: float32 `[batch, num_q_heads, q_len]`, or packed `[1, num_q_heads, tokens]`; None if it is not wanted.
        cu_seqlens_q: int32 `[batch + 1]` of packed rows.
        sinks: float32 `[num_q_heads]`.
        scale: Factor of scores, above 0.
        shared_keys: So many first keys are those of the first request for all.
        shared: What rows attend of these, as (out, lse) in float32, `[batch, num_q_heads, v_head_dim]` and
            `[batch, num_q_heads]`; then only the other keys are read.
    """

    q: torch.Tensor
    out: torch.Tensor
    lse: torch.Tensor | None
    cu_seqlens_q: torch.Tensor | None
    sinks: torch.Tensor | None
    scale: float
    shared_keys: int = 0
    shared: tuple[torch.Tensor, torch.Tensor] | None = None
