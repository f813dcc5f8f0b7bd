"""The forward pass, batch by batch: softmax over a batch's keys, and results of one row joined by their lse."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spattn.backends.torch.careful import careful_matmul
from spattn.backends.torch.heads import (
    Heads,
    allowed_pairs,
    per_row,
    scores,
    stored_index,
    stored_rows,
    take_keys,
    take_rows,
)
from spattn.backends.torch.schedule import Batch


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def attend(heads: Heads, batch: Batch, scale: float, out: Tensor, lse: Tensor, *, finite: bool) -> None:
    """Adds a batch to `out` [batch, kv heads, group, q_len, v_head_dim] and `lse` [.., q_len]."""
    group = heads.q.shape[2]
    q = take_rows(heads.q, batch, out.dtype) * scale
    k, v = (take_keys(x, batch, out.dtype) for x in (heads.k, heads.v))
    s = scores(q, k, batch, group)
    o, ell = _softmax(s, v) if finite else _careful_softmax(s, v, allowed_pairs(batch, group))
    if batch.empty is not None:
        empty = per_row(batch.empty, group)
        o, ell = o.masked_fill(empty, 0), ell.masked_fill(empty, -torch.inf)
    _store(stored_rows(o, batch, group), stored_rows(ell, batch, group)[..., 0], batch, out, lse)


def _softmax(s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(out, lse); a row without keys gives nan. The greatest weight is 1 / sum, which saves a pass for the sum."""
    p = s.softmax(-1)
    return p @ v, s.amax(-1, keepdim=True) - p.amax(-1, keepdim=True).log()


def _careful_softmax(s: Tensor, v: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    lse = s.logsumexp(-1, keepdim=True)
    p = torch.where(allowed, (s - lse).exp(), 0)
    return careful_matmul(p, allowed, v), lse


def _store(o: Tensor, ell: Tensor, batch: Batch, out: Tensor, lse: Tensor) -> None:
    rows = stored_index(batch)
    if not batch.fresh:
        o, ell = _joined(out.index_select(3, rows), lse.index_select(3, rows), o, ell)
    out.index_copy_(3, rows, o)
    lse.index_copy_(3, rows, ell)


def _joined(o1: Tensor, l1: Tensor, o2: Tensor, l2: Tensor) -> tuple[Tensor, Tensor]:
    """Two results over disjoint keys as one over all."""
    lse = torch.logaddexp(l1, l2)
    base = lse.masked_fill(lse == -torch.inf, 0)
    w1, w2 = ((ell - base).exp().unsqueeze(-1) for ell in (l1, l2))
    # a side without keys has weight 0 and result 0
    return o1 * w1 + o2 * w2, lse


def head_slices(heads: Heads, batch: Batch, limit: int) -> Iterator[tuple[slice, slice]]:
    """Slices of batch entries and key heads whose scores and gathered keys stay below `limit` bytes together."""
    entries, kv_heads, group = heads.q.shape[:3]
    tiles, width = batch.rows.shape
    keys = batch.keys.shape[1]
    one = tiles * keys * (group * width + heads.k.shape[-1] + heads.v.shape[-1]) * 4
    step = max(limit // max(one, 1), 1)
    for b in range(entries):
        for h in range(0, kv_heads, step):
            yield slice(b, b + 1), slice(h, h + step)
