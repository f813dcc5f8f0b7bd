"""vLLM's blocks of a layer as pages of keys and values, and new tokens into them."""

from __future__ import annotations

import torch
from torch import Tensor

from spattn.errors import UnsupportedError
from spattn.serving.append import as_stored

STORED: dict[str, torch.dtype | None] = {
    "auto": None,
    "float16": None,
    "bfloat16": None,
    "fp8": torch.float8_e4m3fn,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
"""What vLLM calls a cache's numbers, and their dtype where its tensor is one of bytes."""


def stored_dtype(name: str) -> torch.dtype | None:
    """The dtype that bytes of a cache stand for; None where its tensor has the right one.

    Raises:
        UnsupportedError: E061, numbers of this kind are not read.
    """
    if name not in STORED:
        raise UnsupportedError("E061", f"a cache of {name} is not read", hint=f"kv_cache_dtype is one of {[*STORED]}")
    return STORED[name]


def halves(kv_cache: Tensor, head_dim: int, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Keys and values `[blocks, num_kv_heads, block_size, head_dim]`, views.

    Args:
        kv_cache: `[blocks, num_kv_heads, block_size, 2 * head_dim]`, any strides, last dimension dense.
        head_dim: Width of a head.
        dtype: Of what is stored, where the tensor is one of bytes.
    """
    stored = kv_cache if dtype is None or kv_cache.dtype == dtype else kv_cache.view(dtype)
    return stored[..., :head_dim], stored[..., head_dim : 2 * head_dim]


def write(new: Tensor, stored: Tensor, slots: Tensor, scale: Tensor | None) -> None:
    """Writes new tokens by torch, on a CPU: it looks at the slots.

    Args:
        new: `[tokens or more, num_kv_heads, head_dim]`, of keys or values.
        stored: `[blocks, num_kv_heads, block_size, head_dim]`.
        slots: `[tokens]`, block * block_size + the place in it; a negative one is of no token.
        scale: float32 `[1]`: a number is what is stored times this.
    """
    real = slots >= 0
    blocks, places = slots[real] // stored.shape[2], slots[real] % stored.shape[2]
    stored[blocks, :, places] = as_stored(new[: len(slots)][real], stored.dtype, scale)
