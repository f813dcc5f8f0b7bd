"""A call that has run, for the next one like it: nothing is looked at but addresses."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

import torch

from spattn.backends.request import Request
from spattn.backends.triton.launch import Launch
from spattn.backends.triton.memory import shares_memory

ALIGNMENT = 16


class Bound:
    """The launches of a request, for tensors of the same shapes, strides, dtypes and device.

    What was made of the pattern's own tensors serves as long as these are the same, unchanged; of those themselves
    only addresses are held, so that nothing here keeps them alive.

    Args:
        request: The call that has run.
        launches: What ran for it, a launch a group of heads.
    """

    def __init__(self, request: Request, launches: Sequence[Launch]) -> None:
        batch, heads, q_len, _ = request.q.shape
        self._lse = (batch, heads, q_len)
        self._out = (*self._lse, request.v.shape[-1])
        self._dtype, self._device = request.q.dtype, request.q.device
        sources = tuple(request.tensors.values())
        self._sources = {name: (weakref.ref(one), one._version) for name, one in request.tensors.items()}
        made = [tensor for one in launches for tensor in one.tensors]
        self._kept = [tensor for tensor in made if not shares_memory(tensor, sources)]
        self._runs = [
            (one.schedule, one.pairs, [tensor.data_ptr() for tensor in one.tensors])
            for one in launches
            if one.schedule.steps
        ]

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tensors: Mapping[str, object]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(out, lse); None where these tensors need kernels of their own, or another device is current."""
        at = [q.data_ptr(), k.data_ptr(), v.data_ptr()]
        if (at[0] | at[1] | at[2]) % ALIGNMENT or torch.cuda.current_device() != self._device.index:
            return None
        for name, (source, version) in self._sources.items():
            one = source()
            if one is None or one is not tensors[name] or one._version != version:
                return None
        out = torch.empty(self._out, dtype=self._dtype, device=self._device)
        lse = torch.empty(self._lse, dtype=torch.float32, device=self._device)
        at += (out.data_ptr(), lse.data_ptr())
        for schedule, pairs, made in self._runs:
            schedule.again([*at, at[-1] if pairs is None else pairs.data_ptr(), *made], self._device)
        return out, lse


def bound(request: Request, launches: Sequence[Launch]) -> Bound | None:
    """The launches for later calls; None where each call has to be looked at."""
    aligned = all(tensor.data_ptr() % ALIGNMENT == 0 for tensor in (request.q, request.k, request.v))
    compiled = launches and all(one.schedule.compiled for one in launches)
    watched = not any(tensor.is_inference() for tensor in request.tensors.values())  # those count no versions
    return Bound(request, launches) if aligned and compiled and watched and request.scale > 0 else None
