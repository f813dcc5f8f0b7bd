"""Attention along a layout as a differentiable function of q, k, v."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spattn.backends.torch.backward import Rows, differentiate
from spattn.backends.torch.careful import is_finite
from spattn.backends.torch.forward import accumulation_dtype, attend, head_slices
from spattn.backends.torch.heads import Heads, grouped
from spattn.backends.torch.runs import Run, runs
from spattn.backends.torch.schedule import Batch
from spattn.expressions.tensors import Tensors
from spattn.layout.ir import Layout

LIMIT = {"cpu": 4 << 20}
"""Bytes of scores and gathered keys at a time: what a processor's cache holds, 64 MiB elsewhere."""


def forward(
    layout: Layout,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    q_offset: int,
    tensors: Mapping[str, Tensor],
    need_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention over the pairs of a layout of direction "queries"; differentiable.

    Args:
        layout: What to compute.
        q: [batch, num_q_heads, q_len, head_dim].
        k: [batch, num_kv_heads, kv_len, head_dim].
        v: [batch, num_kv_heads, kv_len, v_head_dim].
        scale: Factor of the scores.
        q_offset: Position of the first query.
        tensors: The pattern's run-time tensors.
        need_lse: Whether to return the log-sum-exp.

    Returns:
        out [batch, num_q_heads, q_len, v_head_dim] in q's dtype, and lse [batch, num_q_heads, q_len] or None; lse is
        float32, float64 for float64.
    """
    sizes, kv_len = (q.shape[0], q.shape[1]), k.shape[2]
    given = Tensors({name: _as_array(tensor) for name, tensor in tensors.items()}, kv_len, *sizes)
    made = runs(layout, q.shape[2], q_offset, given, kv_len, sizes, q.device)
    out, lse = _Attention.apply(q, k, v, made, scale)  # type: ignore[no-untyped-call]
    return out, lse if need_lse else None


def _as_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A copy: the backward pass must see what the forward pass saw."""
    return np.asarray(tensor.detach().cpu().clone())


class _Attention(torch.autograd.Function):
    """(out, lse) of q, k, v along runs."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, made: list[Run], scale: float) -> tuple[Tensor, Tensor]:
        dtype = accumulation_dtype(q.dtype)
        out = q.new_zeros((*q.shape[:3], v.shape[-1]), dtype=dtype)
        lse = q.new_full(q.shape[:3], -torch.inf, dtype=dtype)
        finite = is_finite(q, k, v)
        for (heads, o, ell), batch in _pieces(made, Heads(q, k, v), out, lse):
            attend(heads, batch, scale, o, ell, finite=finite)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.made, ctx.scale, ctx.finite = made, scale, finite
        return out.to(q.dtype), lse.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        d_out = d_out.to(out.dtype)
        empty = lse == -torch.inf
        shift = ((d_out * out).sum(-1) - d_lse).masked_fill(empty, 0).unsqueeze(-1)
        lse = lse.masked_fill(empty, 0).unsqueeze(-1)
        grads = Heads(*(torch.zeros_like(x, dtype=out.dtype, memory_format=torch.contiguous_format) for x in (q, k, v)))
        finite = ctx.finite and is_finite(d_out)
        whole = Heads(q, k, v)
        for (heads, *rows, into_q, into_k, into_v), batch in _pieces(
            ctx.made, whole, d_out, lse, shift, grads.q, keys=(grads.k, grads.v)
        ):
            into = Heads(into_q, into_k, into_v)
            differentiate(heads, Rows(*rows), batch, ctx.scale, into, finite=finite)
        return grads.q.to(q.dtype), grads.k.to(k.dtype), grads.v.to(v.dtype), None, None


def _pieces(made: list[Run], heads: Heads, *rows: Tensor, keys: tuple[Tensor, ...] = ()) -> Iterator[tuple[Any, Batch]]:
    """Each batch with views of the tensors of those heads that it serves, few enough at a time.

    `rows` are tensors with query heads, `keys` tensors with key heads; their views follow those of `heads`.
    """
    kv_heads = heads.k.shape[1]
    limit = LIMIT.get(heads.q.device.type, 64 << 20)
    for run in made:
        group = heads.q.shape[1] // kv_heads
        entry = slice(None) if run.batch is None else slice(run.batch, run.batch + 1)
        if run.head is None:
            of_rows = [grouped(x, kv_heads)[entry] for x in (heads.q, *rows)]
            of_keys = [x[entry] for x in (heads.k, heads.v, *keys)]
        else:
            of_rows = [x[entry, run.head : run.head + 1].unsqueeze(1) for x in (heads.q, *rows)]
            own = slice(run.head // group, run.head // group + 1)
            of_keys = [x[entry, own] for x in (heads.k, heads.v, *keys)]
        served = Heads(of_rows[0], of_keys[0], of_keys[1])
        for batch in run.batches():
            for b, h in head_slices(served, batch, limit):
                views = [x[b, h] for x in (*of_rows, *of_keys)]
                n = len(of_rows)
                yield (Heads(views[0], views[n], views[n + 1]), *views[1:n], *views[n + 2 :]), batch
