"""Generated kernels on a GPU: whom they serve, and in which languages."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cache, lru_cache

import torch

from spattn.backends import registry
from spattn.call import request as call
from spattn.call.request import CompiledPattern, Request, Served, wants_gradient
from spattn.codegen.kernel_specs import FORWARD, GRAD_KV, GRAD_Q
from spattn.codegen.languages import LANGUAGES
from spattn.gpu.autograd import Differentiable, Recorded
from spattn.gpu.forward import attend
from spattn.gpu.lacks import lacks
from spattn.gpu.launch import Options, Outputs
from spattn.gpu.limits import beyond
from spattn.gpu.replay import replayed
from spattn.layout.describe import pass_title
from spattn.layout.ir import Layout
from spattn.versions import cure, untested


@dataclass(frozen=True)
class Gpu:
    """The backend.

    Attributes:
        languages: In which kernels may be written, by name.
    """

    languages: tuple[str, ...]

    def refusal(self, plans: CompiledPattern, request: Request) -> str | None:
        """Why it cannot serve a request, as a sentence; None if it can."""
        q = request.q
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        if not q.is_cuda and not interpreted:
            return f"q is on {q.device.type}, and Triton's kernels run on GPUs"
        if interpreted and q.dtype == torch.bfloat16:
            return "Triton's interpreter (TRITON_INTERPRET=1) computes bfloat16 wrongly; use float16 or float32"
        return beyond(request.shape) or missing() or self._unwritten(plans, request) or lacks(plans, request)

    def serve(self, plans: CompiledPattern, request: Request) -> Served:
        """The answer, and how calls like this one are answered from now on."""
        floats = [request.tensors[name] for name in request.floats]
        if wants_gradient(request.q, request.k, request.v, floats):
            made = Recorded(plans, request, self.languages, _second)
            return Served(*made(request.q, request.k, request.v, request.tensors, request.positions.said, None), made)
        outputs = Outputs.of(request)
        launches = attend(plans, request, outputs, Options(self.languages))
        return Served(outputs.out, outputs.lse, replayed(request, launches))

    def differentiable(self, plans: CompiledPattern, request: Request) -> Differentiable:
        """What knows the gradients of calls like a request."""
        return Differentiable(Recorded(plans, request, self.languages, _second), request.positions)

    def _unwritten(self, plans: CompiledPattern, request: Request) -> str | None:
        """The pass that no language writes, where there is one; a traced call is asked when its sizes are numbers."""
        if not type(request.batch_size) is type(request.num_q_heads) is int:
            return None
        layouts = (
            layout
            for values in plans.groups(request.batch_size, request.num_q_heads)
            for layout in (plans.layout_of(values), plans.transposed_of(values))
        )
        return next((why for layout in layouts if (why := unwritten(layout, self.languages)) is not None), None)


@lru_cache(maxsize=1024)
def unwritten(layout: Layout, languages: tuple[str, ...]) -> str | None:
    """Why some pass of a layout is written in none of the languages, as a sentence; None if each is."""
    kinds = (FORWARD, GRAD_Q) if layout.direction == "queries" else (GRAD_KV,)
    for one in layout.passes:
        for kind in kinds:
            reasons = [LANGUAGES[name].refusal(one, kind.name) for name in languages]
            if None not in reasons:
                why = "; ".join(map(str, reasons))
                return f"the pass over {pass_title(one, layout.direction)} is written in no language: {why}"
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


def _second(plans: CompiledPattern, request: Request) -> call.Differentiable:
    """The torch backend differentiates gradients."""
    return registry.backends("torch")["torch"].differentiable(plans, request)
