"""A call that has run, for the next one like it: nothing is looked at but addresses."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from spattn.call.prepared import Prepared
from spattn.call.request import Request
from spattn.gpu.launch import Launch
from spattn.gpu.output_allocator import OutputAllocator

ALIGNMENT = 16


class Runs:
    """Launches, to be run again on other addresses.

    Args:
        launches: What has run for a request, a launch a group of heads.
        request: It.
    """

    def __init__(self, launches: Sequence[Launch], request: Request) -> None:
        self._device = request.q.device
        self._runs = [(one.schedule, one.pairs, one.inputs) for one in launches if one.schedule.steps]

    def __call__(self, at: Sequence[int], prepared: Prepared) -> None:
        """Launches on the current stream, for tensors of the kind at these addresses.

        Args:
            at: Of the kind's tensors.
            prepared: The pattern's; what the launches read is derived from them.
        """
        for schedule, pairs, inputs in self._runs:
            made = inputs.tensors(prepared) if inputs else ()
            addresses = [*at, at[-1] if pairs is None else pairs.data_ptr(), *(one.data_ptr() for one in made)]
            schedule.again(addresses, self._device)


class ReplayedCall:
    """The launches of a request, for tensors of the same shapes, strides, dtypes and device.

    The pattern's own tensors are aligned as its were, too.

    Args:
        request: The call that has run.
        launches: What ran for it, a launch a group of heads.
    """

    def __init__(self, request: Request, launches: Sequence[Launch]) -> None:
        batch, heads, q_len, _ = request.q.shape
        device = request.q.device
        self._index = device.index
        self._out = OutputAllocator((batch, heads, q_len, request.v.shape[-1]), request.q.dtype, device)
        self._lse = OutputAllocator((batch, heads, q_len), torch.float32, device)
        self._runs = Runs(launches, request)

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prepared: Prepared
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(out, lse); None where these tensors need kernels of their own, or another device is current."""
        at = [q.data_ptr(), k.data_ptr(), v.data_ptr()]
        if (at[0] | at[1] | at[2]) % ALIGNMENT or torch.cuda.current_device() != self._index:
            return None
        out, lse = self._out(), self._lse()
        at += (out.data_ptr(), lse.data_ptr())
        self._runs(at, prepared)
        return out, lse


def bound(request: Request, launches: Sequence[Launch]) -> ReplayedCall | None:
    """The launches for later calls; None where each call has to be looked at."""
    bindable = can_bind(request, launches, (request.q, request.k, request.v))
    return ReplayedCall(request, launches) if bindable and request.scale > 0 else None


def can_bind(request: Request, launches: Sequence[Launch], tensors: Sequence[torch.Tensor]) -> bool:
    """May what ran for a request on these tensors run again for others that are aligned?"""
    aligned = all(tensor.data_ptr() % ALIGNMENT == 0 for tensor in tensors)
    return aligned and bool(launches) and all(one.schedule.compiled for one in launches)
