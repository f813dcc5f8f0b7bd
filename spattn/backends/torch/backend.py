"""What the torch backend can do, and how it does a request: each group of heads along its own layout."""

from __future__ import annotations

import torch

from spattn.backends.request import Plans, Request
from spattn.backends.torch.function import forward


def refusal(request: Request) -> str | None:
    """Nothing that passes the checks of arguments is refused."""
    del request
    return None


def run(plans: Plans, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, lse) of a request; lse is empty where it is not wanted."""
    groups = plans.groups(request.batch_size, request.num_q_heads)
    out: torch.Tensor | None = None
    lse = request.q.new_empty(0, dtype=torch.float32)
    for values, pairs in groups.items():
        o, ell = forward(
            plans.layout_of(values),
            request.q,
            request.k,
            request.v,
            scale=request.scale,
            q_offset=request.q_offset,
            tensors=request.tensors,
            need_lse=request.need_lse,
        )
        ell = lse if ell is None else ell
        if out is None:
            out, lse = o, ell
            continue
        mine = torch.zeros(request.batch_size * request.num_q_heads, dtype=torch.bool, device=o.device)
        mine[torch.from_numpy(pairs)] = True
        mine = mine.view(request.batch_size, request.num_q_heads, 1)
        out = torch.where(mine[..., None], o, out)
        lse = torch.where(mine, ell, lse) if request.need_lse else lse
    if out is None:
        out = request.q.new_zeros((*request.q.shape[:3], request.v.shape[-1]))
    return out, lse
