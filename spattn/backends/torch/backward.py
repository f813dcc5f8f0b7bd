"""The backward pass, batch by batch: weights are computed again from q, k and lse, so that nothing is kept for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spattn.backends.torch.batch import Batch
from spattn.backends.torch.forward import LN_2, LOG2_E
from spattn.backends.torch.repair import product, transposed_product
from spattn.backends.torch.scoring import Pairs
from spattn.backends.torch.tiles import (
    add_rows,
    allowed_pairs,
    masked,
    per_row,
    scores,
    stored_index,
    stored_rows,
    take_keys,
    take_rows,
)


@dataclass(frozen=True)
class Rows:
    """What the backward pass reads of each row, [entries, kv heads, members, q_len, ..].

    Attributes:
        q: Queries.
        d_out: Gradient of the output.
        lse: [.., q_len, 1] in base 2, 0 for rows without keys.
        shift: [.., q_len, 1]: rowsum(d_out * out) less the gradient of lse.
    """

    q: Tensor
    d_out: Tensor
    lse: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Gradients:
    """Where those gradients that are asked for are added up: shaped as a part's q, k, v, and as a score's tensors."""

    q: Tensor | None
    k: Tensor | None
    v: Tensor | None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def read_rows(out: Tensor, lse: Tensor, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """`Rows.d_out`, `Rows.lse` and `Rows.shift`, of whole tensors, in lse's dtype.

    Args:
        out: [batch, num_q_heads, q_len, v_head_dim].
        lse: [batch, num_q_heads, q_len], natural.
        d_out: Gradient of out; None for zero.
        d_lse: Gradient of lse; None for zero.
    """
    d_out = torch.zeros_like(out, dtype=lse.dtype) if d_out is None else d_out.to(lse.dtype)
    empty = lse == -torch.inf
    shift = (d_out * out).sum(-1)
    shift = (shift if d_lse is None else shift - d_lse).masked_fill(empty, 0).unsqueeze(-1)
    return d_out, (lse * LOG2_E).masked_fill(empty, 0).unsqueeze(-1), shift


def differentiate(
    rows: Rows,
    k: Tensor,
    v: Tensor,
    batch: Batch,
    scale: float,
    into: Gradients,
    pairs: Pairs | None = None,
    *,
    repair: bool,
) -> None:
    """Adds a batch's share to the gradients of a part; `pairs` is what a score makes of its products."""
    members, dtype = rows.q.shape[2], rows.lse.dtype
    rows = _gathered(rows, batch, scale, dtype)
    k, v = (take_keys(x, batch, dtype) for x in (k, v))
    allowed = allowed_pairs(batch, members) if repair else None
    s = of_products = scores(rows.q, k)
    if pairs is not None:
        of_products = s.mul_(LN_2)
        s = pairs.scored(of_products).mul_(LOG2_E)
    p = weights(s, rows.lse, batch, members, allowed)
    if into.v is not None:
        add_rows(into.v, batch.keys.ravel(), transposed_product(allowed, p, rows.d_out).flatten(2, 3))
    if into.q is None and into.k is None and not into.tensors:
        return
    d_s = (rows.d_out @ v.transpose(-1, -2)).sub_(rows.shift).mul_(p)
    if allowed is not None:
        d_s = torch.where(allowed, d_s, 0)
    if pairs is not None:
        d_s = pairs.derived(of_products, d_s, allowed_pairs(batch, members), into.tensors)
    if into.q is not None:
        d_q = product(allowed, d_s, k) * scale
        add_rows(into.q, stored_index(batch), stored_rows(d_q, batch, members))
    if into.k is not None:
        add_rows(into.k, batch.keys.ravel(), (transposed_product(allowed, d_s, rows.q) * LN_2).flatten(2, 3))


def _gathered(rows: Rows, batch: Batch, scale: float, dtype: torch.dtype) -> Rows:
    """The rows of a batch, q scaled for scores in base 2; those that are not stored weigh nothing."""
    q, d_out, lse, shift = (take_rows(x, batch, dtype) for x in (rows.q, rows.d_out, rows.lse, rows.shift))
    if batch.lost is not None:
        lost = per_row(batch.lost, rows.q.shape[2])
        d_out, lse = d_out.masked_fill(lost, 0), lse.masked_fill(lost, torch.inf)
        shift = shift.masked_fill(lost, 0)
    return Rows(q * (scale * LOG2_E), d_out, lse, shift)


def weights(s: Tensor, lse: Tensor, batch: Batch, members: int, allowed: Tensor | None) -> Tensor:
    """What the pairs of a batch weigh, from their scores in base 2, which are overwritten; 0 where not allowed.

    Args:
        s: [entries, kv heads, tiles, members * M, N].
        lse: [.., members * M, 1], in base 2.
        batch: Rows and keys.
        members: Query heads of a key head.
        allowed: The pairs, where what is not allowed may hold nan or inf.
    """
    if allowed is not None:
        return torch.where(allowed, (s - lse).exp2(), 0)
    return masked(s, batch, members).sub_(lse).exp2_()
