"""The backward pass, batch by batch: weights are computed again from q, k and lse, so that nothing is kept for it."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Rows:
    """What the forward pass and the loss say of each row, [batch, kv heads, group, q_len, ..].

    Attributes:
        d_out: Gradient of the output.
        lse: [.., q_len, 1], 0 for rows without keys.
        shift: [.., q_len, 1]: rowsum(d_out * out) less the gradient of lse.
    """

    d_out: Tensor
    lse: Tensor
    shift: Tensor


def differentiate(heads: Heads, rows: Rows, batch: Batch, scale: float, into: Heads, *, finite: bool) -> None:
    """Adds a batch's share to the gradients in `into`."""
    group, dtype = heads.q.shape[2], into.q.dtype
    q, d_out, lse, shift = (take_rows(x, batch, dtype) for x in (heads.q, rows.d_out, rows.lse, rows.shift))
    k, v = (take_keys(x, batch, dtype) for x in (heads.k, heads.v))
    if batch.lost is not None:
        lost = per_row(batch.lost, group)
        d_out, lse = d_out.masked_fill(lost, 0), lse.masked_fill(lost, torch.inf)
        shift = shift.masked_fill(lost, 0)
    s = scores(q * scale, k, batch, group)
    gradients = _products if finite else _careful_products
    d_q, d_k, d_v = gradients(s, q, k, v, d_out, lse, shift, allowed_pairs(batch, group) if not finite else None)
    into.q.index_add_(3, stored_index(batch), stored_rows(d_q * scale, batch, group))
    into.k.index_add_(2, batch.keys.ravel(), (d_k * scale).flatten(2, 3))
    into.v.index_add_(2, batch.keys.ravel(), d_v.flatten(2, 3))


def _products(
    s: Tensor, q: Tensor, k: Tensor, v: Tensor, d_out: Tensor, lse: Tensor, shift: Tensor, _: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    p = s.sub_(lse).exp_()
    d_v = p.transpose(-1, -2) @ d_out
    d_s = (d_out @ v.transpose(-1, -2)).sub_(shift).mul_(p)
    return d_s @ k, d_s.transpose(-1, -2) @ q, d_v


def _careful_products(
    s: Tensor, q: Tensor, k: Tensor, v: Tensor, d_out: Tensor, lse: Tensor, shift: Tensor, allowed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    assert allowed is not None
    swapped = allowed.transpose(-1, -2)
    p = torch.where(allowed, (s - lse).exp(), 0)
    d_v = careful_matmul(p.transpose(-1, -2), swapped, d_out)
    d_s = torch.where(allowed, p * (d_out @ v.transpose(-1, -2) - shift), 0)
    return careful_matmul(d_s, allowed, k), careful_matmul(d_s.transpose(-1, -2), swapped, q), d_v
