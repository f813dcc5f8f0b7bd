"""A backward pass that has run, for the next one like it: nothing is looked at but addresses."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from spattn.backends.request import Request
from spattn.backends.triton.backward import Gradients, Ran, is_alike
from spattn.backends.triton.bound import ALIGNMENT, Runs, can_bind
from spattn.backends.triton.launch import Outputs
from spattn.backends.triton.row_terms import row_terms
from spattn.backends.triton.watched import Watched


class BoundBackward:
    """What ran for the gradients of a request, for tensors of the same shapes, strides, dtypes and device.

    Args:
        request: The call.
        ran: What ran for it.
        wanted: The gradients that are asked for.
    """

    def __init__(self, request: Request, ran: Ran, wanted: tuple[bool, bool, bool]) -> None:
        self._wants_q, self._wants_keys = wanted[0], wanted[1] or wanted[2]
        self._index = request.q.device.index
        self._watched = Watched(request.tensors)
        self._row_kernels = ran.row_kernels
        self._queries, self._keys = Runs(ran.queries, request), Runs(ran.keys, request)

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        saved: Outputs,
        d_out: torch.Tensor,
        d_lse: torch.Tensor | None,
        tensors: Mapping[str, object],
    ) -> Gradients | None:
        """The gradients; None where these tensors need kernels of their own, or another device is current."""
        at = (q.data_ptr(), k.data_ptr(), v.data_ptr(), d_out.data_ptr())
        if (at[0] | at[1] | at[2] | at[3]) % ALIGNMENT or torch.cuda.current_device() != self._index:
            return None
        if not self._watched.same(tensors):
            return None
        terms = row_terms(self._row_kernels, saved, d_out, d_lse)
        rows = terms.lse2.data_ptr(), terms.delta.data_ptr()
        dq = dk = dv = None
        if self._wants_q:
            dq = torch.empty_like(q)
            self._queries((*at, dq.data_ptr(), *rows))
        if self._wants_keys:
            dk, dv = torch.empty_like(k), torch.empty_like(v)
            self._keys((*at, dk.data_ptr(), dv.data_ptr(), *rows))
        return Gradients(dq, dk, dv)


def bound_backward(
    request: Request, d_out: torch.Tensor, ran: Ran | None, wanted: tuple[bool, bool, bool]
) -> BoundBackward | None:
    """The launches for later backward passes; None where each has to be looked at."""
    if ran is None or ran.summed or not all(map(is_alike, (request.q, request.k, request.v))):
        return None
    bindable = can_bind(request, [*ran.queries, *ran.keys], (request.q, request.k, request.v, d_out))
    return BoundBackward(request, ran, wanted) if bindable else None
