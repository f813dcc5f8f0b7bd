"""Storage: where the keys and values of a request lie. A position becomes an address (block, slot, head).

A cache is tensors that others own: nothing is copied, and `kv_lens` is written in place, by `append` or by its owner.
What a pattern means knows nothing of storage, and storage nothing of patterns but which keys a ring may drop.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from spattn.errors import ArgumentError
from spattn.runtime.tensors import require_tensor

FLOAT8 = torch.float8_e4m3fn, torch.float8_e5m2
DTYPES = torch.float16, torch.bfloat16, torch.float32, torch.float64, *FLOAT8
MOST = 1 << 30  # tokens, as in a call
Scale = float | Tensor


class Storage(ABC):
    """Keys and values of a batch of requests; `Dense`, `Paged` or `Ring`.

    Args:
        keys: `[blocks, slots, num_kv_heads, head_dim]`, a view.
        values: `[blocks, slots, num_kv_heads, v_head_dim]`, a view.
        kv_lens: int32 `[batch]`, how many tokens each request holds.
        k_scale: A key is its stored number times this: a number, or float32 `[1]` or `[num_kv_heads]`.
        v_scale: The same of values.

    Attributes:
        keys, values, kv_lens: As given.
        k_scale, v_scale: float32 `[1]` or `[num_kv_heads]`; None for 1.
        page_size: Slots of a page; 0 where there are no pages.
        table: int32, the pages of each request, `[batch, max_pages]`, or of all, flat; None without pages.
        table_starts: int32 `[batch + 1]`, where the pages of each request begin in a flat table; None for rows.
        window, window_base, kept: Of a `Ring`; 0, 0 and None of others.

    Raises:
        ArgumentError: E060, tensors do not fit each other.
    """

    page_size = 0
    table: Tensor | None = None
    table_starts: Tensor | None = None
    window = 0
    window_base = 0
    kept: Tensor | None = None

    def __init__(
        self, keys: Tensor, values: Tensor, kv_lens: Tensor, k_scale: Scale | None, v_scale: Scale | None, capacity: int
    ) -> None:
        _check_pair(keys, values)
        check_integers("kv_lens", kv_lens, keys.device, 1)
        self.keys, self.values, self.kv_lens, self._capacity = keys, values, kv_lens, capacity
        self.k_scale = _scale("k_scale", k_scale, keys)
        self.v_scale = _scale("v_scale", v_scale, values)

    @property
    def capacity(self) -> int:
        """No request can hold more tokens."""
        return self._capacity

    @property
    def batch_size(self) -> int:
        """Requests, those that hold nothing too."""
        return self.kv_lens.shape[0]

    @property
    def num_kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.keys.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """Of what is stored."""
        return self.keys.dtype

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.keys.device

    @abstractmethod
    def places(self, request: int | Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks and slots of positions, int64, whether or not there is room.

        Args:
            request: Whose, one or one a position.
            positions: From 0.
        """

    def has_room(self, request: int | Tensor, positions: Tensor) -> Tensor:
        """Which positions have a slot of this request, bool."""
        del request
        return positions < self.capacity

    def held(self, request: int) -> Tensor:
        """The positions of a request that may be read, ascending, int64; reads its length on the host."""
        positions = torch.arange(int(self.kv_lens[request]), device=self.device)
        return positions[self.has_room(request, positions)]

    def spans(self, request: int) -> Sequence[tuple[int, int]]:
        """Ranges of positions, ascending and apart, outside of which no key of a request is needed."""
        return [(0, int(self.kv_lens[request]))]

    def kept_of(self, new: Tensor, positions: Tensor) -> Tensor | None:
        """Which new positions are still held when all are written; None for all.

        Args:
            new: Tokens that the request of each holds afterwards.
            positions: Of new tokens.
        """
        del new, positions
        return None

    def read(self, request: int, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys `[stop - first, num_kv_heads, head_dim]` and values of a range of positions; NaN where none is held.

        They are as stored, without their scales.
        """
        held = self.held(request)
        held = held[(held >= first) & (held < stop)]
        blocks, slots = self.places(request, held)
        found = []
        for stored in (self.keys, self.values):
            gathered = stored.new_full((stop - first, *stored.shape[2:]), torch.nan)
            gathered[held - first] = stored[blocks, slots]
            found.append(gathered)
        return found[0], found[1]

    def append(self, k_new: Tensor, v_new: Tensor, cu_seqlens_q: Tensor | None = None) -> None:
        """Writes new tokens behind those that requests hold, and adds them to `kv_lens`.

        Nothing is read on the host, and a CUDA graph may hold it. Float8 is saturated. A token without a slot is an
        error on a CPU; on a GPU it is not written, and counted all the same.

        Args:
            k_new: `[tokens, num_kv_heads, head_dim]` with `cu_seqlens_q`, else `[batch, num_kv_heads, new, head_dim]`.
            v_new: The same of values.
            cu_seqlens_q: int32 `[batch + 1]`: new tokens of request b are cu[b] .. cu[b+1]-1.

        Raises:
            ArgumentError: E060, shapes, dtypes or devices do not fit, or a request has no room.
        """
        from spattn.serving.append import append

        append(self, k_new, v_new, cu_seqlens_q)

    def __repr__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        blocks, slots, heads, dim = self.keys.shape
        shape = f"{self.batch_size} requests, {blocks} x {slots} slots, {heads} heads of {dim}"
        return f"{type(self).__name__}({shape}, {kind}, {self.device})"


def check_dense(name: str, x: Tensor, shape: str) -> None:
    """Refuses what is no tensor of four dimensions whose last one is dense, named by `shape`.

    Raises:
        ArgumentError: E060.
    """
    require_tensor(name, x)
    if x.dim() != 4:
        raise ArgumentError("E060", f"{name} has shape {list(x.shape)}, not {shape}")
    if x.shape[3] > 1 and x.stride(3) != 1:
        raise ArgumentError("E060", f"{name} has strides {list(x.stride())}; its last dimension is dense")


def check_integers(name: str, x: Tensor, device: torch.device, dimensions: int) -> None:
    """Refuses what is no int32 tensor of so many dimensions on the device of keys.

    Raises:
        ArgumentError: E060.
    """
    require_tensor(name, x)
    if x.dtype != torch.int32:
        raise ArgumentError("E060", f"{name} is {x.dtype}, not torch.int32")
    if x.device != device:
        raise ArgumentError("E060", f"{name} is on {x.device} and k on {device}")
    if x.dim() != dimensions:
        raise ArgumentError("E060", f"{name} has shape {list(x.shape)}; it has {dimensions} dimension(s)")
    if x.shape[-1] > 1 and x.stride(-1) != 1:
        raise ArgumentError("E060", f"{name} has strides {list(x.stride())}; its last dimension is dense")


def _check_pair(keys: Tensor, values: Tensor) -> None:
    if keys.dtype not in DTYPES:
        raise ArgumentError("E060", f"k is {keys.dtype}; a cache holds floats of 16, 32 or 64 bits, or float8")
    if values.dtype != keys.dtype:
        raise ArgumentError("E060", f"v is {values.dtype} and k is {keys.dtype}", hint="give both one dtype")
    if values.device != keys.device:
        raise ArgumentError("E060", f"v is on {values.device} and k on {keys.device}")
    if keys.shape[:3] != values.shape[:3]:
        shapes = f"{list(keys.shape)} and {list(values.shape)}"
        raise ArgumentError(
            "E060", f"k and v differ in more than the width of a head: [blocks, slots, heads, dim] {shapes}"
        )


def _scale(name: str, scale: Scale | None, stored: Tensor) -> Tensor | None:
    if scale is None:
        return None
    if not isinstance(scale, Tensor):
        if not (scale > 0 and math.isfinite(scale)):
            raise ArgumentError("E060", f"{name} is {scale}; it is a number above 0")
        return torch.full((1,), float(scale), dtype=torch.float32, device=stored.device)
    require_tensor(name, scale)
    heads = stored.shape[2]
    if scale.dtype != torch.float32 or tuple(scale.shape) not in ((1,), (heads,)) or scale.device != stored.device:
        given = f"{scale.dtype} {list(scale.shape)} on {scale.device}"
        raise ArgumentError(
            "E060", f"{name} is {given}; it is a number, or float32 [1] or [{heads}] on {stored.device}"
        )
    return scale.contiguous()
