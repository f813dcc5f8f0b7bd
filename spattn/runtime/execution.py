"""One call: checked, given to a backend, answered."""

from __future__ import annotations

import torch

from spattn.backends import registry
from spattn.backends.request import Plans, Request
from spattn.runtime.arguments import checked

__all__ = ["checked", "execute"]


def execute(plans: Plans, request: Request, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, lse) of a request.

    Raises:
        UnsupportedError: No backend that may serve it can.
    """
    return registry.backend(registry.choose(backend, request)).run(plans, request)
