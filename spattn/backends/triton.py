"""What the Triton backend can do, and how it does a request."""

from __future__ import annotations

import os
import warnings
from functools import cache

import torch

from spattn.backends import registry
from spattn.call import request as call
from spattn.call.positions import Positions
from spattn.call.request import CompiledPattern, Request, Served, wants_gradient
from spattn.cost.tile import Tile
from spattn.gpu.autograd import Differentiable, attention
from spattn.gpu.forward import attend
from spattn.gpu.launch import Outputs
from spattn.gpu.limits import beyond
from spattn.gpu.replay import bound
from spattn.versions import cure, untested


def refusal(request: Request) -> str | None:
    """Why Triton cannot serve the request, as a sentence; None if it can."""
    q = request.q
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not q.is_cuda and not interpreted:
        return f"q is on {q.device.type}, and Triton's kernels run on GPUs"
    if interpreted and q.dtype == torch.bfloat16:
        return "Triton's interpreter (TRITON_INTERPRET=1) computes bfloat16 wrongly; use float16 or float32"
    return _lacks(request.positions) or beyond(request.shape) or missing()


def _lacks(at: Positions) -> str | None:
    """What its kernels cannot do yet."""
    if at.by_request:
        return f"{', '.join(at.by_request)} given as tensors are not served yet"
    if at.given != (0, at.kv_len):
        first, stop = at.given
        return f"keys {first} .. {stop - 1} of {at.kv_len} are given, and a part of the keys is not served yet"
    return None


@cache
def missing() -> str | None:
    """What is not installed, or not in a version that is tested, as a sentence; a warning says the latter, once."""
    try:
        import triton
    except ImportError:
        return "triton is not installed: pip install 'spattn[gpu]'"
    outside = untested("triton", triton.__version__)
    if outside is None:
        return None
    why = f"{outside}: {cure('triton')}"
    warnings.warn(f"Triton's kernels are not used, for {why}", RuntimeWarning, stacklevel=2)
    return why


def run(
    plans: CompiledPattern, request: Request, *, outputs: Outputs | None = None, tile: Tile | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, lse) of a request: each group of heads by the kernels of its own layout.

    Args:
        plans: The compiled pattern.
        request: A call that `refusal` does not refuse.
        outputs: Where to write; new tensors where it is not given.
        tile: For every pass, instead of the one that suits the device.
    """
    outputs = outputs or Outputs.of(request)
    attend(plans, request, outputs, tile)
    return outputs.out, outputs.lse


def serve(plans: CompiledPattern, request: Request) -> Served:
    """The answer, and how calls like this one are answered from now on."""
    if wants_gradient(request.q, request.k, request.v):
        return Served(*attention(plans, request, _second))
    outputs = Outputs.of(request)
    launches = attend(plans, request, outputs)
    return Served(outputs.out, outputs.lse, bound(request, launches))


def differentiable(plans: CompiledPattern, request: Request) -> Differentiable:
    """What knows the gradients of calls like a request."""
    return Differentiable(plans, request, _second)


def _second(plans: CompiledPattern, request: Request) -> call.Differentiable:
    """The torch backend differentiates gradients."""
    return registry.backend("torch").differentiable(plans, request)
