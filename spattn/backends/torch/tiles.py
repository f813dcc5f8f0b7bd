"""A batch's tiles of a part's tensors: rows and keys gathered, their scores, and rows put back.

The query heads that share a key head are rows of one product, so that no key is repeated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spattn.backends.torch.batch import Batch


def take_rows(x: Tensor, batch: Batch, dtype: torch.dtype) -> Tensor:
    """[entries, kv heads, members, q_len, d] -> [entries, kv heads, tiles, members * M, d]."""
    taken = x.index_select(3, batch.rows.ravel()).to(dtype)
    return taken.view(*x.shape[:3], *batch.rows.shape, x.shape[4]).transpose(2, 3).flatten(3, 4)


def take_keys(x: Tensor, batch: Batch, dtype: torch.dtype) -> Tensor:
    """[entries, kv heads, kv_len, d] -> [entries, kv heads, tiles, N, d]; a view where one can be had."""
    shape = (*x.shape[:2], *batch.keys.shape, x.shape[3])
    if batch.span is None:
        return x.index_select(2, batch.keys.ravel()).to(dtype).view(shape)
    first, step = batch.span
    strides = (x.stride(0), x.stride(1), step * x.stride(2), x.stride(2), x.stride(3))
    view = x.as_strided(shape, strides, x.storage_offset() + first * x.stride(2)).to(dtype)
    # what is not one batch of matrices is copied here, since a product would copy k transposed
    return view.flatten(0, 2).view(shape)


def stored_rows(x: Tensor, batch: Batch, members: int) -> Tensor:
    """[entries, kv heads, tiles, members * M, d] -> [entries, kv heads, members, stored rows, d]."""
    flat = x.reshape(*x.shape[:3], members, batch.rows.shape[1], x.shape[4]).transpose(2, 3).flatten(3, 4)
    return flat if batch.stored is None else flat.index_select(3, batch.stored)


def stored_index(batch: Batch) -> Tensor:
    """Indices into q of the rows that are stored."""
    return batch.rows.ravel() if batch.stored is None else batch.rows.ravel()[batch.stored]


def add_rows(into: Tensor, index: Tensor, values: Tensor) -> None:
    """`into[.., index, :] += values`; one head alone as a matrix, where torch is several times as fast."""
    if into.shape[:-2].numel() == 1:
        into, values = into.view(into.shape[-2:]), values.reshape(values.shape[-2:])
    if into.is_cuda:
        add_in_order(into, index, values)
    else:
        into.index_add_(into.dim() - 2, index, values)


def add_in_order(into: Tensor, index: Tensor, values: Tensor) -> None:
    """The same by sorting: on a GPU `index_add_` adds rows of one index in an order that varies."""
    into.movedim(-2, 0).index_put_((index,), values.movedim(-2, 0), accumulate=True)


def scores(q: Tensor, k: Tensor) -> Tensor:
    """[entries, kv heads, tiles, members * M, N]: products of rows and keys."""
    return q @ k.transpose(-1, -2)


def masked(s: Tensor, batch: Batch, members: int) -> Tensor:
    """Scores, in place: -inf where a pair is not allowed, or nan where they were inf or nan."""
    rows = s.view(*s.shape[:3], members, batch.rows.shape[1], s.shape[4])
    for first, mask in batch.masks:
        rows.narrow(-1, first, mask.shape[-1]).add_(mask.unsqueeze(1))
    return s


def allowed_pairs(batch: Batch, members: int) -> Tensor:
    """[tiles, members * M, N] as truth values."""
    tiles, width = batch.rows.shape
    allowed = torch.ones((tiles, width, batch.keys.shape[1]), dtype=torch.bool, device=batch.keys.device)
    for first, mask in batch.masks:
        allowed.narrow(-1, first, mask.shape[-1]).copy_(mask == 0)
    if batch.lost is not None:
        allowed &= ~batch.lost.unsqueeze(-1)
    return allowed.unsqueeze(1).expand(-1, members, -1, -1).flatten(1, 2)


def per_row(x: Tensor, members: int) -> Tensor:
    """[tiles, M] -> [tiles, members * M, 1]."""
    return x.unsqueeze(1).expand(-1, members, -1).flatten(1, 2).unsqueeze(-1)
