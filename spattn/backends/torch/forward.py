"""The forward pass, batch by batch: softmax over a batch's keys, and results of one row joined by their lse.

Scores are in base 2, since torch's exp2 is several times as fast as its exp on a CPU; lse is natural outside.
"""

from __future__ import annotations

from math import log, log2

import torch
from torch import Tensor

from spattn.backends.torch.batch import Batch
from spattn.backends.torch.repair import product
from spattn.backends.torch.scoring import Pairs
from spattn.backends.torch.tiles import (
    allowed_pairs,
    masked,
    per_row,
    scores,
    stored_index,
    stored_rows,
    take_keys,
    take_rows,
)

LOG2_E, LN_2 = log2(torch.e), log(2)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    batch: Batch,
    scale: float,
    out: Tensor,
    lse: Tensor,
    pairs: Pairs | None = None,
    *,
    repair: bool,
) -> None:
    """Adds a batch to the results of a part.

    Args:
        q: [entries, kv heads, members, q_len, head_dim].
        k: [entries, kv heads, kv_len, head_dim].
        v: [entries, kv heads, kv_len, v_head_dim].
        batch: Rows and keys.
        scale: Factor of the scores.
        out: [entries, kv heads, members, q_len, v_head_dim].
        lse: [entries, kv heads, members, q_len].
        pairs: What a score makes of the batch's products.
        repair: What is not allowed may hold nan or inf.
    """
    members = q.shape[2]
    q = take_rows(q, batch, out.dtype) * (scale * LOG2_E)
    k, v = (take_keys(x, batch, out.dtype) for x in (k, v))
    s = scores(q, k)
    if pairs is not None:
        s = pairs.scored(s.mul_(LN_2)).mul_(LOG2_E)
    o, ell = (
        _repaired_softmax(s, v, allowed_pairs(batch, members)) if repair else _softmax(masked(s, batch, members), v)
    )
    if batch.empty is not None:
        empty = per_row(batch.empty, members)
        o, ell = o.masked_fill(empty, 0), ell.masked_fill(empty, -torch.inf)
    _store(stored_rows(o, batch, members), stored_rows(ell, batch, members)[..., 0], batch, out, lse)


def _softmax(s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(out, lse); a row without keys gives nan."""
    top = s.amax(-1, keepdim=True)
    p = s.sub_(top).exp2_()
    total = p.sum(-1, keepdim=True)
    return (p @ v).div_(total), top.add_(total.log2()).mul_(LN_2)


def _repaired_softmax(s: Tensor, v: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    s = s.mul_(LN_2).masked_fill_(~allowed, -torch.inf)
    lse = s.logsumexp(-1, keepdim=True)
    p = torch.where(allowed, (s - lse).exp(), 0)
    return product(allowed, p, v), lse


def _store(o: Tensor, ell: Tensor, batch: Batch, out: Tensor, lse: Tensor) -> None:
    rows = stored_index(batch)
    if not batch.fresh:
        o, ell = _joined(out.index_select(3, rows), lse.index_select(3, rows), o, ell)
    out.index_copy_(3, rows, o)
    lse.index_copy_(3, rows, ell)


def _joined(o1: Tensor, l1: Tensor, o2: Tensor, l2: Tensor) -> tuple[Tensor, Tensor]:
    """Two results over disjoint keys as one over all."""
    share = (l2 - l1).sigmoid().nan_to_num(0)  # of the second; nan where neither side has keys, and both are 0
    return torch.lerp(o1, o2, share.unsqueeze(-1)), torch.logaddexp(l1, l2)
