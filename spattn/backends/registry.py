"""Who serves calls, by the name that users give: a kernel language, "torch", or "auto" for all in order.

Nothing is imported before it is asked for.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from spattn.codegen.languages import LANGUAGES, languages_of
from spattn.errors import UnsupportedError

if TYPE_CHECKING:
    from spattn.call.request import CompiledPattern, Differentiable, Request, Served


class Backend(Protocol):
    """What serves calls."""

    def refusal(self, plans: CompiledPattern, request: Request) -> str | None:
        """Why it cannot serve the request, as a sentence; None if it can."""
        ...

    def serve(self, plans: CompiledPattern, request: Request) -> Served:
        """The answer to a request that it does not refuse."""
        ...

    def differentiable(self, plans: CompiledPattern, request: Request) -> Differentiable:
        """What knows the gradients of calls like a request that it does not refuse."""
        ...


def require(name: str) -> None:
    """Refuses a name that is neither `auto` nor a backend's nor a language's.

    Raises:
        UnsupportedError: E041, there is no such backend.
    """
    if name not in ("auto", "torch", *LANGUAGES):
        raise UnsupportedError("E041", f"no backend is called {name!r}", hint=f"auto, {', '.join(LANGUAGES)}, torch")


@cache
def backends(name: str) -> dict[str, Backend]:
    """Those that may serve, in the order in which they are asked, by the names that messages give them.

    Raises:
        UnsupportedError: E041, there is no such backend.
    """
    require(name)
    torch = cast(Backend, import_module("spattn.backends.torch.backend"))
    if name == "torch":
        return {"torch": torch}
    languages = languages_of(name)
    gpu = {", ".join(languages): import_module("spattn.backends.gpu").Gpu(languages)}
    return {**gpu, "torch": torch} if name == "auto" else gpu


def choose(name: str, plans: CompiledPattern, request: Request) -> Backend:
    """The backend that serves a request: the one named, or for `auto` the first that does not refuse.

    Raises:
        UnsupportedError: E061, it (or each of them) refuses; the message says why.
    """
    refusals = {}
    for candidate, backend in backends(name).items():
        why = backend.refusal(plans, request)
        if why is None:
            return backend
        refusals[candidate] = why
    reasons = "; ".join(f"backend {candidate!r}: {why}" for candidate, why in refusals.items())
    raise UnsupportedError("E061", reasons, hint="" if name == "auto" else "backend='auto' takes the first that can")
