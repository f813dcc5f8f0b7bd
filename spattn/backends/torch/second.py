"""The derivative of the backward pass, batch by batch, by the formulas that it computes.

With scores s = scale * q k^T, weights p = exp(s - lse) and d_s = p * (d_out v^T - shift), where shift is
rowsum(d_out * out) - d_lse, the gradients are d_q = scale * d_s k, d_k = scale * d_s^T q, d_v = p^T d_out. With
gradients g_q, g_k, g_v of these, the sum of <g, d> is that of p * ((d_out v^T - shift) * x + y) over the pairs, where

    x = scale * (g_q k^T + q g_k^T),    y = d_out g_v^T.

What depends on q, k and v through out and lse is left to autograd, whose graph holds these as results of attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from spattn.backends.torch.backward import read_rows, weights
from spattn.backends.torch.batch import Batch
from spattn.backends.torch.forward import LOG2_E
from spattn.backends.torch.pieces import pieces
from spattn.backends.torch.repair import is_finite, product, transposed_product
from spattn.backends.torch.runs import Run
from spattn.backends.torch.tiles import (
    add_rows,
    allowed_pairs,
    per_row,
    scores,
    stored_index,
    stored_rows,
    take_keys,
    take_rows,
)
from spattn.call.request import Upstream


@dataclass(frozen=True)
class Rows:
    """What is read of each row, [entries, kv heads, members, q_len, ..].

    Attributes:
        q, d_out: Queries, and the gradient of the output.
        g_q: Gradient of the gradient of q.
        lse: [.., q_len, 1] in base 2, 0 for rows without keys.
        shift: [.., q_len, 1]: rowsum(d_out * out) less the gradient of lse.
    """

    q: Tensor
    d_out: Tensor
    g_q: Tensor
    lse: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Keys:
    """What is read of each key, [entries, kv heads, kv_len, ..]: k, v, and the gradients of their gradients."""

    k: Tensor
    v: Tensor
    g_k: Tensor
    g_v: Tensor


@dataclass(frozen=True)
class Sums:
    """Where the derivatives are added up: those of q, d_out, shift and natural lse by rows, of k and v by keys."""

    q: Tensor
    d_out: Tensor
    shift: Tensor
    lse: Tensor
    k: Tensor
    v: Tensor


def second(
    made: list[Run],
    scale: float,
    saved: tuple[Tensor, ...],
    d_out: Tensor | None,
    d_lse: Tensor | None,
    upstream: Upstream,
) -> tuple[Tensor, ...]:
    """The derivatives of d_out, d_lse, q, k, v, out and lse, each shaped as what it belongs to.

    Args:
        made: The runs of the call.
        scale: Factor of the scores.
        saved: q, k, v, out, lse.
        d_out: Gradient of out; None for zero.
        d_lse: Gradient of lse; None for zero.
        upstream: Gradients of the gradients of q, k and v; None for zero.
    """
    q, k, v, out, lse = saved
    g_q, g_k, g_v = (torch.zeros_like(x) if g is None else g for g, x in zip(upstream, (q, k, v), strict=True))
    d_out, *of_rows = read_rows(out, lse, d_out, d_lse)
    rows, keys = Rows(q, d_out, g_q, *of_rows), Keys(k, v, g_k, g_v)
    found = _sums(rows, keys, made, scale, repair=False) if is_finite(out) else None
    if found is None or not is_finite(*vars(found).values()):
        found = _sums(rows, keys, made, scale, repair=True)
    results = found.d_out + found.shift * out, -found.shift[..., 0], found.q, found.k, found.v, found.shift * d_out
    like = out, lse, q, k, v, out
    return *(one.to(x.dtype) for one, x in zip(results, like, strict=True)), found.lse[..., 0]


def _sums(rows: Rows, keys: Keys, made: list[Run], scale: float, *, repair: bool) -> Sums:
    """The derivatives by q, d_out, shift, lse, k and v."""
    of_rows, of_keys = tuple(vars(rows).values()), tuple(vars(keys).values())
    like = rows.q, rows.d_out, rows.shift, rows.lse, keys.k, keys.v
    sums = [torch.zeros(x.shape, dtype=rows.shift.dtype, device=x.device) for x in like]
    with torch.autocast(keys.k.device.type, enabled=False):
        for of_r, of_k, batch in pieces(made, (*of_rows, *sums[:4]), (*of_keys, *sums[4:])):
            into = Sums(*of_r[5:], *of_k[4:])
            _differentiate(Rows(*of_r[:5]), Keys(*of_k[:4]), batch, scale, into, repair=repair)
    return Sums(*sums)


def _differentiate(rows: Rows, keys: Keys, batch: Batch, scale: float, into: Sums, *, repair: bool) -> None:
    """Adds a batch's share to the derivatives of a part."""
    members, dtype = rows.q.shape[2], into.q.dtype
    rows = Rows(*(take_rows(x, batch, dtype) for x in vars(rows).values()))
    keys = Keys(*(take_keys(x, batch, dtype) for x in vars(keys).values()))
    if batch.lost is not None:
        rows = _without(rows, per_row(batch.lost, members))
    allowed = allowed_pairs(batch, members) if repair else None
    p = weights(scores(rows.q * (scale * LOG2_E), keys.k), rows.lse, batch, members, allowed)
    found = _shares(rows, keys, p, scale, allowed)
    for name in ("q", "d_out", "shift", "lse"):
        add_rows(getattr(into, name), stored_index(batch), stored_rows(getattr(found, name), batch, members))
    for name in ("k", "v"):
        add_rows(getattr(into, name), batch.keys.ravel(), getattr(found, name).flatten(2, 3))


def _without(rows: Rows, lost: Tensor) -> Rows:
    """Rows that are not stored weigh nothing."""
    zero = {name: x.masked_fill(lost, 0) for name, x in vars(rows).items()}
    return Rows(**{**zero, "q": rows.q, "lse": rows.lse.masked_fill(lost, torch.inf)})


def _shares(rows: Rows, keys: Keys, p: Tensor, scale: float, allowed: Tensor | None) -> Sums:
    """A batch's shares, of gathered rows and keys."""
    x = scale * (scores(rows.g_q, keys.k) + scores(rows.q, keys.g_k))
    p_x, d_s = p * x, p * (scores(rows.d_out, keys.v) - rows.shift)
    w = d_s * x + p * scores(rows.d_out, keys.g_v)
    if allowed is not None:
        p_x, d_s, w = (torch.where(allowed, one, 0) for one in (p_x, d_s, w))
    by_rows, by_keys = partial(product, allowed), partial(transposed_product, allowed)
    return Sums(
        q=scale * (by_rows(w, keys.k) + by_rows(d_s, keys.g_k)),
        d_out=by_rows(p_x, keys.v) + by_rows(p, keys.g_v),
        shift=-p_x.sum(-1, keepdim=True),
        lse=-w.sum(-1, keepdim=True),
        k=scale * (by_keys(w, rows.q) + by_keys(d_s, rows.g_q)),
        v=by_keys(p_x, rows.d_out),
    )
