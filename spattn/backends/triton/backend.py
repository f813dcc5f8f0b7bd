"""What the Triton backend can do, and how it does a request."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from spattn.backends.request import Plans, Request
from spattn.backends.triton.launch import Outputs, launch
from spattn.backends.triton.load import load
from spattn.backends.triton.tiles import Tile

MAX_HEAD_DIM = 256


def refusal(request: Request) -> str | None:
    """Why Triton cannot serve the request, as a sentence; None if it can."""
    q, v = request.q, request.v
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not q.is_cuda and not interpreted:
        return f"q is on {q.device.type}, and Triton's kernels run on GPUs"
    if interpreted and q.dtype == torch.bfloat16:
        return "Triton's interpreter (TRITON_INTERPRET=1) computes bfloat16 wrongly; use float16 or float32"
    if q.dtype == torch.float64:
        return "the kernels serve float16, bfloat16 and float32, not float64"
    if max(q.shape[-1], v.shape[-1]) > MAX_HEAD_DIM:
        return f"head dimensions go up to {MAX_HEAD_DIM}, not {max(q.shape[-1], v.shape[-1])}"
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, request.k, v)):
        return "its kernels have no backward pass yet, and a gradient is asked for"
    return missing()


@cache
def missing() -> str | None:
    """What is not installed, as a sentence."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return "triton is not installed: pip install 'spattn[gpu]'"
    return None


def run(
    plans: Plans, request: Request, *, outputs: Outputs | None = None, tile: Tile | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, lse) of a request: each group of heads by the kernels of its own layout.

    Args:
        plans: The compiled pattern.
        request: A call that `refusal` does not refuse.
        outputs: Where to write; new tensors where it is not given.
        tile: For every pass, instead of the one that suits the device.
    """
    outputs = outputs or Outputs.of(request)
    if request.kv_len == 0:  # what is read at a key's position would be read from nowhere
        outputs.out.zero_()
        outputs.lse.fill_(-torch.inf)
        return outputs.out, outputs.lse
    groups = plans.groups(request.batch_size, request.num_q_heads)
    with torch.cuda.device(request.q.device) if request.q.is_cuda else nullcontext():
        for values, pairs in groups.items():
            only: NDArray[np.int64] | None = pairs if len(groups) > 1 else None
            source = plans.module_of(values)
            kernels = load(plans.publish(source.text), source.text)
            launch(plans.layout_of(values), source, kernels, request, outputs, only, tile)
    return outputs.out, outputs.lse
