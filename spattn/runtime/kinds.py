"""Which calls are served alike: by the same kernels, whatever their lengths, addresses and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from spattn.call.positions import BY_REQUEST, Numbers, keys_inside, placed
from spattn.call.rounding import rounded
from spattn.expressions.width import FIRST, LONGEST

ALIGNMENT = 16  # bytes; kernels are compiled anew for addresses that are no multiples


def numbers_of(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None,
    said: Numbers,
    tensors: Mapping[str, Any],
) -> tuple[Any, ...]:
    """All that may decide how a call is served, but for values and addresses.

    Args:
        q: Of the call.
        k: Of the call.
        v: Of the call.
        scale: Factor of the scores.
        said: Where rows and keys stand, in numbers.
        tensors: The pattern's, torch's own.
    """
    dtypes, devices = (q.dtype, k.dtype, v.dtype), (q.device, k.device, v.device)
    own = [(name, one.shape, one.stride(), *_kind(one)) for name, one in tensors.items()] if tensors else ()
    return q.shape, k.shape, v.shape, q.stride(), k.stride(), v.stride(), dtypes, devices, scale, said, own


def kind_of(numbers: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What calls share that the same kernels serve; None for a call that is to be looked at.

    Lengths count to powers of two, as tiles are chosen for them; a size of a tensor that is a length counts as such.
    """
    q, k, v, of_q, of_k, of_v, dtypes, devices, scale, said, own = numbers
    if not len(q) == len(k) == len(v) == 4 or k[:3] != v[:3]:
        return None
    batch, heads, q_len, width = q
    by_request = tuple(name for name in BY_REQUEST if any(name == one[0] for one in own)) if own else ()
    at = placed(said, by_request, q_len, k[2])
    kv_len, stop = at.kv_len, at.q_offset + at.q_len
    if not (at.q_offset >= FIRST and at.k_offset >= FIRST and stop < LONGEST and kv_len < LONGEST):
        return None
    strides = of_q[2:], of_k[2:], of_v[2:]
    lengths: tuple[Any, ...] = _bucket(q_len), _bucket(k[2]), _bucket(stop), stop == kv_len, q_len == kv_len
    if at.given != (0, kv_len) or by_request:
        keys = keys_inside(at.k_offset, at.num_keys, kv_len)
        lengths += _bucket(at.q_len), _bucket(at.num_keys), *rounded(at.rows, keys, kv_len)
        lengths += tuple(one is None for one in said)
    sizes = [(name, tuple(_size(n, q_len, kv_len) for n in shape), *kind) for name, shape, _, *kind in own]
    return (batch, heads, width, k[0], k[1], k[3], v[3], *strides, lengths, dtypes, devices, scale, *sizes)


def _kind(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What kernels are compiled for."""
    return tensor.dtype, tensor.device, tensor.data_ptr() % ALIGNMENT


def _bucket(length: int) -> int:
    """The same for all lengths up to one power of two, from the one before on."""
    return length if length < 2 else 1 + (length - 1).bit_length()


def _size(n: int, q_len: int, kv_len: int) -> int | str:
    if n == kv_len:
        return "keys"
    return "queries" if n == q_len else n
