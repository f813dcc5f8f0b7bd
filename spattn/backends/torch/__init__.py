"""The torch backend: attention along a layout in PyTorch, on any device. It refuses nothing but odd dtypes."""

from __future__ import annotations

import torch

from spattn.backends.request import Request
from spattn.backends.torch.function import forward
from spattn.layout.ir import Layout

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

__all__ = ["DTYPES", "forward", "refusal", "run"]


def refusal(layout: Layout, request: Request) -> str | None:
    """Why this backend cannot serve a request; None where it can."""
    del layout
    dtypes = {x.dtype for x in (request.q, request.k, request.v)}
    if len(dtypes) > 1:
        return f"q, k and v have different dtypes: {', '.join(sorted(map(str, dtypes)))}"
    return None if dtypes <= set(DTYPES) else f"the torch backend has no {dtypes.pop()}"


def run(layout: Layout, request: Request) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The answer to a request."""
    return forward(
        layout,
        request.q,
        request.k,
        request.v,
        scale=request.scale,
        q_offset=request.q_offset,
        tensors=request.tensors,
        need_lse=request.need_lse,
    )
