"""The backward pass, batch by batch: weights are computed again from q, k and lse, so that nothing is kept for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from spattn.backends.torch.batch import Batch
from spattn.backends.torch.careful import careful_matmul
from spattn.backends.torch.forward import LN_2, LOG2_E
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

Through = Callable[[Tensor], Tensor]
"""From the gradient of scores to that of the products that they are made of."""


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
    """Where the gradients are added up: shaped as a part's q, k, v, and of a score's tensors as these."""

    q: Tensor
    k: Tensor
    v: Tensor
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
    careful: bool,
) -> None:
    """Adds a batch's share to the gradients of a part; `pairs` is what a score makes of its products."""
    members, dtype = rows.q.shape[2], into.q.dtype
    q, d_out, lse, shift = (take_rows(x, batch, dtype) for x in (rows.q, rows.d_out, rows.lse, rows.shift))
    k, v = (take_keys(x, batch, dtype) for x in (k, v))
    if batch.lost is not None:
        lost = per_row(batch.lost, members)
        d_out, lse = d_out.masked_fill(lost, 0), lse.masked_fill(lost, torch.inf)
        shift = shift.masked_fill(lost, 0)
    q = q * (scale * LOG2_E)
    s = scores(q, k)
    through: Through = _unchanged
    if pairs is not None:
        product, allowed = s.mul_(LN_2), allowed_pairs(batch, members)
        s = pairs.scored(product).mul_(LOG2_E)
        through = partial(_through, pairs, product, allowed, into.tensors)
    if careful:
        d_q, d_k, d_v = _careful_products(s, q, k, v, d_out, lse, shift, allowed_pairs(batch, members), through)
    else:
        d_q, d_k, d_v = _products(masked(s, batch, members), q, k, v, d_out, lse, shift, through)
    add_rows(into.q, stored_index(batch), stored_rows(d_q * scale, batch, members))
    add_rows(into.k, batch.keys.ravel(), (d_k * LN_2).flatten(2, 3))
    add_rows(into.v, batch.keys.ravel(), d_v.flatten(2, 3))


def _unchanged(d_s: Tensor) -> Tensor:
    return d_s


def _through(pairs: Pairs, s: Tensor, allowed: Tensor, into: Mapping[str, Tensor], d_s: Tensor) -> Tensor:
    return pairs.derived(s, d_s, allowed, into)


def _products(
    s: Tensor, q: Tensor, k: Tensor, v: Tensor, d_out: Tensor, lse: Tensor, shift: Tensor, through: Through
) -> tuple[Tensor, Tensor, Tensor]:
    p = s.sub_(lse).exp2_()
    d_v = p.transpose(-1, -2) @ d_out
    d_s = through((d_out @ v.transpose(-1, -2)).sub_(shift).mul_(p))
    return d_s @ k, d_s.transpose(-1, -2) @ q, d_v


def _careful_products(
    s: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    d_out: Tensor,
    lse: Tensor,
    shift: Tensor,
    allowed: Tensor,
    through: Through,
) -> tuple[Tensor, Tensor, Tensor]:
    swapped = allowed.transpose(-1, -2)
    p = torch.where(allowed, (s - lse).exp2(), 0)
    d_v = careful_matmul(p.transpose(-1, -2), swapped, d_out)
    d_s = through(torch.where(allowed, p * (d_out @ v.transpose(-1, -2) - shift), 0))
    return careful_matmul(d_s, allowed, k), careful_matmul(d_s.transpose(-1, -2), swapped, q), d_v
