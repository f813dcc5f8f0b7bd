"""Attention along layouts as a differentiable function of q, k, v."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spattn.backends.torch.backward import Gradients, Rows, differentiate
from spattn.backends.torch.careful import is_finite
from spattn.backends.torch.forward import LOG2_E, accumulation_dtype, attend
from spattn.backends.torch.pieces import pieces
from spattn.backends.torch.runs import Run, runs
from spattn.expressions.evaluation import IntArray
from spattn.expressions.tensors import Tensors
from spattn.layout.ir import Layout


def attention(
    groups: Iterable[tuple[Layout, IntArray]],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    q_offset: int,
    tensors: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Attention of each group of heads over the pairs of its layout; differentiable.

    Args:
        groups: Layouts of direction "queries", and whom each serves: `b * num_q_heads + h`, disjoint.
        q: [batch, num_q_heads, q_len, head_dim].
        k: [batch, num_kv_heads, kv_len, head_dim].
        v: [batch, num_kv_heads, kv_len, v_head_dim].
        scale: Factor of the scores.
        q_offset: Position of the first query.
        tensors: The pattern's run-time tensors.

    Returns:
        out [batch, num_q_heads, q_len, v_head_dim] in q's dtype, and lse [batch, num_q_heads, q_len] in float32,
        float64 for float64.
    """
    given = Tensors({name: _as_array(x) for name, x in tensors.items()}, k.shape[2], q.shape[0], q.shape[1])
    made = [run for layout, pairs in groups for run in runs(layout, pairs, q, k, q_offset, given)]
    out, lse = _Attention.apply(q, k, v, made, scale)  # type: ignore[no-untyped-call]
    return out, lse


def _as_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A copy: the backward pass must see what the forward pass saw."""
    return np.asarray(tensor.detach().cpu().clone())


class _Attention(torch.autograd.Function):
    """(out, lse) of q, k, v along runs."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, made: list[Run], scale: float) -> tuple[Tensor, Tensor]:
        out, lse = _results(q, k, v, made, scale, careful=False)
        ctx.careful = not is_finite(out)
        if ctx.careful:
            out, lse = _results(q, k, v, made, scale, careful=True)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.made, ctx.scale = made, scale
        return out.to(q.dtype), lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        d_out = d_out.to(out.dtype)
        empty = lse == -torch.inf
        shift = ((d_out * out).sum(-1) - d_lse).masked_fill(empty, 0).unsqueeze(-1)
        rows = q, d_out, (lse * LOG2_E).masked_fill(empty, 0).unsqueeze(-1), shift
        found = None if ctx.careful else _gradients(rows, k, v, ctx.made, ctx.scale, careful=False)
        if found is None or not is_finite(*found):
            found = _gradients(rows, k, v, ctx.made, ctx.scale, careful=True)
        return *(gradient.to(x.dtype) for gradient, x in zip(found, (q, k, v), strict=True)), None, None


def _results(q: Tensor, k: Tensor, v: Tensor, made: list[Run], scale: float, *, careful: bool) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(q.dtype)
    out = q.new_zeros((*q.shape[:3], v.shape[-1]), dtype=dtype)
    lse = q.new_full(q.shape[:3], -torch.inf, dtype=dtype)
    for (queries, *into), (keys, values), batch in pieces(made, (q, out, lse), (k, v)):
        attend(queries, keys, values, batch, scale, *into, careful=careful)
    return out, lse


def _gradients(
    of_rows: tuple[Tensor, ...], k: Tensor, v: Tensor, made: list[Run], scale: float, *, careful: bool
) -> list[Tensor]:
    dtype = of_rows[-1].dtype
    grads = [torch.zeros(x.shape, dtype=dtype, device=x.device) for x in (of_rows[0], k, v)]
    for (*rows, into_q), (keys, values, *into), batch in pieces(made, (*of_rows, grads[0]), (k, v, *grads[1:])):
        differentiate(Rows(*rows), keys, values, batch, scale, Gradients(into_q, *into), careful=careful)
    return grads
