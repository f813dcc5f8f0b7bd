"""One call: checked, given to a backend, answered; a call like an earlier one is answered at once."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch

from spattn.backends import registry
from spattn.backends.request import Again, Plans
from spattn.runtime.arguments import checked

MAX_KINDS = 1024


class Calls:
    """The calls of one Attention.

    Args:
        plans: What is computed.
        backend: The name of the backend that was asked for.
        roles: The pattern's free names, and what each is.
        tf32: May float32 products use TF32?
    """

    def __init__(self, plans: Plans, backend: str, roles: Mapping[str, str], tf32: bool) -> None:
        self._plans, self._backend, self._roles, self._tf32 = plans, backend, roles, tf32
        self._again: dict[Any, Again] = {}

    def call(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float | None,
        q_offset: int | None,
        tensors: Mapping[str, object],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, lse).

        Raises:
            ArgumentError: Shapes, dtypes or devices do not fit.
            BindError: A tensor is missing or one too many.
            UnsupportedError: No backend that may serve it can.
        """
        if not type(q) is type(k) is type(v) is torch.Tensor or _wants_gradient(q, k, v):
            return self._looked_at(q, k, v, scale, q_offset, tensors, None)
        kinds = q.dtype, k.dtype, v.dtype, q.device, k.device, v.device
        given = [(name, id(one)) for name, one in tensors.items()] if tensors else ()
        key = q.shape, k.shape, v.shape, q.stride(), k.stride(), v.stride(), kinds, scale, q_offset, *given
        again = self._again.get(key)
        answer = None if again is None else again(q, k, v, tensors)
        return answer or self._looked_at(q, k, v, scale, q_offset, tensors, key)

    def _looked_at(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float | None,
        q_offset: int | None,
        tensors: Mapping[str, object],
        key: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Checks and serves a call; where it has a key, calls like it will be quicker."""
        numbers: dict[str, Any] = {"scale": scale, "q_offset": q_offset, "tf32": self._tf32}
        request = checked(q, k, v, roles=self._roles, tensors=tensors, **numbers)
        served = registry.backend(registry.choose(self._backend, request)).serve(self._plans, request)
        if key is not None and served.again is not None and all(map(torch.is_tensor, tensors.values())):
            self._remember(key, served.again, tensors)
        return served.out, served.lse

    def _remember(self, key: Any, again: Again, tensors: Mapping[str, object]) -> None:
        """Keeps what serves a kind of calls while the pattern's tensors live."""
        if len(self._again) >= MAX_KINDS:
            self._again.clear()
        if key not in self._again:
            for one in tensors.values():
                weakref.finalize(one, self._again.pop, key, None)
        self._again[key] = again


def _wants_gradient(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
