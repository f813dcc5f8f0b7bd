"""Backend names -> modules, in the order in which `auto` asks them; nothing is imported before it is asked for.

A backend module has `refusal(request) -> str | None`, `serve(plans, request) -> Served` and
`differentiable(plans, request) -> Differentiable`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from spattn.errors import UnsupportedError

if TYPE_CHECKING:
    from spattn.call.request import CompiledPattern, Differentiable, Request, Served

BACKENDS = {
    "triton": "spattn.backends.triton",
    "torch": "spattn.backends.torch.backend",
}


class Backend(Protocol):
    """What a backend module offers."""

    def refusal(self, request: Request) -> str | None:
        """Why it cannot serve the request, as a sentence; None if it can."""
        ...

    def serve(self, plans: CompiledPattern, request: Request) -> Served:
        """The answer to a request that it does not refuse."""
        ...

    def differentiable(self, plans: CompiledPattern, request: Request) -> Differentiable:
        """What knows the gradients of calls like a request that it does not refuse."""
        ...


def require(name: str) -> None:
    """Refuses a name that is neither `auto` nor a backend's.

    Raises:
        UnsupportedError: E041, there is no such backend.
    """
    if name != "auto" and name not in BACKENDS:
        raise UnsupportedError("E041", f"no backend is called {name!r}", hint=f"auto, {', '.join(BACKENDS)}")


@cache
def backend(name: str) -> Backend:
    """The module of a backend.

    Raises:
        UnsupportedError: E041, there is no such backend.
    """
    require(name)
    return cast(Backend, import_module(BACKENDS[name]))


def choose(name: str, request: Request) -> str:
    """The backend that serves a request: the one named, or for `auto` the first that does not refuse.

    Raises:
        UnsupportedError: E061, it (or each of them) refuses; the message says why.
    """
    refusals = {}
    for candidate in BACKENDS if name == "auto" else (name,):
        why = backend(candidate).refusal(request)
        if why is None:
            return candidate
        refusals[candidate] = why
    reasons = "; ".join(f"backend {candidate!r}: {why}" for candidate, why in refusals.items())
    raise UnsupportedError("E061", reasons, hint="" if name == "auto" else "backend='auto' takes the first that can")
