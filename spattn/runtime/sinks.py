"""Sinks: one more logit in each row of a head, without a value. It takes weight from keys and adds to the lse.

Nothing of it is in a kernel: out becomes out * sigmoid(lse - sink), and the gradient of lse does the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spattn.errors import ArgumentError
from spattn.runtime.tensors import require_tensor


def check_sinks(sinks: Tensor, q: Tensor) -> None:
    """Refuses sinks that do not fit q, `[batch, num_q_heads, q_len, head_dim]` or `[tokens, num_q_heads, head_dim]`.

    Raises:
        ArgumentError: E060, sinks is no float tensor `[num_q_heads]` on q's device.
    """
    require_tensor("q", q)
    require_tensor("sinks", sinks)
    if not sinks.is_floating_point():
        raise ArgumentError("E060", f"sinks is {sinks.dtype}, and no float dtype")
    if sinks.device != q.device:
        raise ArgumentError("E060", f"sinks is on {sinks.device} and q on {q.device}")
    if q.dim() in (3, 4) and tuple(sinks.shape) != (q.shape[1],):
        message = f"sinks has shape {list(sinks.shape)}; it is a logit a query head, [num_q_heads] = [{q.shape[1]}]"
        raise ArgumentError("E060", message)


def out_with_sinks(out: Tensor, lse: Tensor, sinks: Tensor, packed: bool = False) -> Tensor:
    """The out of attention where each row has one more logit, that of its head; a row without keys keeps 0.

    Computed in lse's dtype, and rounded once more.

    Args:
        out: `[batch, num_q_heads, q_len, v_head_dim]`, packed `[tokens, num_q_heads, v_head_dim]`.
        lse: `[batch, num_q_heads, q_len]`, packed `[num_q_heads, tokens]`.
        sinks: `[num_q_heads]`.
        packed: Which of the two?
    """
    above = lse - sinks.to(lse.dtype).unsqueeze(-1)
    share = above.masked_fill(lse.isneginf(), -torch.inf).sigmoid()  # of no keys none, against a sink of -inf too
    factor = share.transpose(-1, -2) if packed else share
    return (out * factor.unsqueeze(-1)).to(out.dtype)


def lse_with_sinks(
    lse: Tensor, sinks: Tensor, q_lens: Tensor | None = None, cu_seqlens_q: Tensor | None = None
) -> Tensor:
    """The lse of the same; that of a row without keys is the sink, that of a row of no request stays -inf.

    Args:
        lse: `[batch, num_q_heads, q_len]`, packed `[num_q_heads, tokens]`.
        sinks: `[num_q_heads]`.
        q_lens: `[batch]`: how many rows each request has.
        cu_seqlens_q: `[batch + 1]`: where the rows of packed requests end.
    """
    sink, empty = sinks.to(lse.dtype).unsqueeze(-1), lse.isneginf()
    found = torch.where(empty, sink, torch.logaddexp(lse.masked_fill(empty, 0), sink))
    if q_lens is None and cu_seqlens_q is None:
        return found
    row = torch.arange(lse.shape[-1], device=lse.device)
    if q_lens is not None:
        return found.masked_fill((row >= q_lens[:, None])[:, None], -torch.inf)
    assert cu_seqlens_q is not None
    return found.masked_fill((row < cu_seqlens_q[0]) | (row >= cu_seqlens_q[-1]), -torch.inf)
