"""What the torch backend can do, and how it does a request: each group of heads along its own layout."""

from __future__ import annotations

from spattn.backends.torch.function import Differentiable, attention, groups_of
from spattn.call.request import CompiledPattern, Request, Served


def refusal(plans: CompiledPattern, request: Request) -> str | None:
    """Nothing that passes the checks of arguments is refused."""
    del plans, request
    return None


def serve(plans: CompiledPattern, request: Request) -> Served:
    """The answer; each call is looked at anew."""
    return Served(*attention(groups_of(plans, request), request))


def differentiable(plans: CompiledPattern, request: Request) -> Differentiable:
    """What knows the gradients of calls like a request."""
    return Differentiable(plans, request.scale, request.positions, request.score)
