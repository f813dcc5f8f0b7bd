"""Heads in groups: the query heads that share a key head are rows of one product, so that no key is repeated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spattn.backends.torch.schedule import Batch


@dataclass(frozen=True)
class Heads:
    """Tensors of the batch entries and heads that one schedule serves.

    Attributes:
        q: [batch, kv heads, group, q_len, head_dim].
        k: [batch, kv heads, kv_len, head_dim].
        v: [batch, kv heads, kv_len, v_head_dim].
    """

    q: Tensor
    k: Tensor
    v: Tensor


def grouped(x: Tensor, kv_heads: int) -> Tensor:
    """[batch, heads, ..] as [batch, kv heads, group, ..]."""
    return x.view(x.shape[0], kv_heads, x.shape[1] // kv_heads, *x.shape[2:])


def take_rows(x: Tensor, batch: Batch, dtype: torch.dtype) -> Tensor:
    """[batch, kv heads, group, q_len, d] -> [batch, kv heads, tiles, group * M, d]."""
    taken = x.index_select(3, batch.rows.ravel()).to(dtype)
    return taken.view(*x.shape[:3], *batch.rows.shape, x.shape[4]).transpose(2, 3).flatten(3, 4)


def take_keys(x: Tensor, batch: Batch, dtype: torch.dtype) -> Tensor:
    """[batch, kv heads, kv_len, d] -> [batch, kv heads, tiles, N, d]."""
    return x.index_select(2, batch.keys.ravel()).to(dtype).view(*x.shape[:2], *batch.keys.shape, x.shape[3])


def stored_rows(x: Tensor, batch: Batch, group: int) -> Tensor:
    """[batch, kv heads, tiles, group * M, d] -> [batch, kv heads, group, stored rows, d]."""
    flat = x.reshape(*x.shape[:3], group, batch.rows.shape[1], x.shape[4]).transpose(2, 3).flatten(3, 4)
    return flat if batch.stored is None else flat.index_select(3, batch.stored)


def stored_index(batch: Batch) -> Tensor:
    """Indices into q of the rows that are stored."""
    return batch.rows.ravel() if batch.stored is None else batch.rows.ravel()[batch.stored]


def scores(q: Tensor, k: Tensor, batch: Batch, group: int) -> Tensor:
    """[batch, kv heads, tiles, group * M, N]: products of rows and keys, -inf where a pair is not allowed."""
    s = q @ k.transpose(-1, -2)
    masked = batch.forbidden.shape[-1]
    if masked:
        rows = s.view(*s.shape[:3], group, batch.rows.shape[1], s.shape[4])
        rows[..., :masked].masked_fill_(batch.forbidden.unsqueeze(1), -torch.inf)
    return s


def allowed_pairs(batch: Batch, group: int) -> Tensor:
    """[tiles, group * M, N] as truth values."""
    tiles, width = batch.rows.shape
    allowed = torch.ones((tiles, width, batch.keys.shape[1]), dtype=torch.bool, device=batch.keys.device)
    allowed[:, :, : batch.forbidden.shape[-1]] = ~batch.forbidden
    if batch.lost is not None:
        allowed &= ~batch.lost.unsqueeze(-1)
    return allowed.unsqueeze(1).expand(-1, group, -1, -1).flatten(1, 2)


def per_row(x: Tensor, group: int) -> Tensor:
    """[tiles, M] -> [tiles, group * M, 1]."""
    return x.unsqueeze(1).expand(-1, group, -1).flatten(1, 2).unsqueeze(-1)
