"""A backward pass that has run, for the next one like it: nothing is looked at but addresses."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from spattn.call.prepared import Prepared
from spattn.call.request import Request
from spattn.codegen.parts import TERMS
from spattn.gpu.backward import Gradients, Ran, is_alike, zero
from spattn.gpu.launch import Outputs
from spattn.gpu.output_allocator import OutputAllocator
from spattn.gpu.replay import ALIGNMENT, Runs, can_bind


class ReplayedBackward:
    """What ran for the gradients of a request, for tensors of the same shapes, strides, dtypes and device.

    Args:
        request: The call.
        ran: What ran for it.
        wanted: The gradients that are asked for.
    """

    def __init__(self, request: Request, ran: Ran, wanted: tuple[bool, bool, bool]) -> None:
        self._wants_keys = wanted[1] or wanted[2]
        self._index = request.q.device.index
        self._terms = OutputAllocator((*request.q.shape[:3], TERMS), torch.float32, request.q.device)
        self._queries, self._keys = Runs(ran.queries, request), Runs(ran.keys, request)

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        saved: Outputs,
        d_out: torch.Tensor,
        d_lse: torch.Tensor | None,
        prepared: Prepared,
    ) -> Gradients | None:
        """The gradients; None where these tensors need kernels of their own, or another device is current."""
        out, lse = saved.out, saved.lse
        at = (q.data_ptr(), k.data_ptr(), v.data_ptr(), d_out.data_ptr())
        row = (out.data_ptr(), (zero(lse.device) if d_lse is None else d_lse).data_ptr(), lse.data_ptr())
        together = at[0] | at[1] | at[2] | at[3] | row[0] | row[1] | row[2]
        if together % ALIGNMENT or torch.cuda.current_device() != self._index:
            return None
        terms = self._terms()  # held until all is launched, else others would write there
        dq, dk, dv = torch.empty_like(q), None, None
        self._queries((*at, row[0], row[1], dq.data_ptr(), row[2], terms.data_ptr()), prepared)
        if self._wants_keys:
            dk, dv = torch.empty_like(k), torch.empty_like(v)
            self._keys((*at, dk.data_ptr(), dv.data_ptr(), terms.data_ptr()), prepared)
        return Gradients(dq, dk, dv)


def replayed_backward(
    request: Request, rows: Iterable[torch.Tensor | None], ran: Ran | None, wanted: tuple[bool, bool, bool]
) -> ReplayedBackward | None:
    """The launches for later backward passes; None where each has to be looked at.

    Args:
        request: The call.
        rows: What else was read: the gradients of out and lse, and these.
        ran: What ran for it.
        wanted: The gradients that were asked for.
    """
    if ran is None or ran.summed or not all(map(is_alike, (request.q, request.k, request.v))):
        return None
    read = [one for one in (request.q, request.k, request.v, *rows) if one is not None]
    bindable = can_bind(request, [*ran.queries, *ran.keys], read)
    return ReplayedBackward(request, ran, wanted) if bindable else None
