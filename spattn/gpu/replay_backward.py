"""A backward pass that has run, for later ones like it: of any lengths that its launch plans serve."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from spattn.call.positions import Positions
from spattn.call.prepared import Prepared
from spattn.call.request import Request
from spattn.codegen.model import ROW_STATS
from spattn.gpu.backward import Gradients, Ran, is_alike, zero
from spattn.gpu.extent import Strides
from spattn.gpu.frame import Frame
from spattn.gpu.launch import Launch, Outputs
from spattn.gpu.output_allocator import OutputAllocator
from spattn.gpu.replay import ALIGNMENT, may_run_again, planned_again, run_again

ZERO = (0, 0, 0)
"""The strides of a gradient that nobody gave."""


class ReplayedBackward:
    """What ran for the gradients of a request, for tensors of its dtypes and device and of strides like its own.

    Args:
        request: The call.
        ran: What ran for it.
        wanted: The gradients that are asked for.
    """

    def __init__(self, request: Request, ran: Ran, wanted: tuple[bool, ...]) -> None:
        self._wants_keys = wanted[1] or wanted[2]
        self._heads, self._scale, self._device = request.num_q_heads, request.scale, request.q.device
        self._queries, self._keys = ran.queries, ran.keys
        self._ready: tuple[Any, _Ready] | None = None

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        saved: Outputs,
        d_out: torch.Tensor,
        d_lse: torch.Tensor | None,
        prepared: Prepared,
        positions: Positions,
        exact: Any,
    ) -> Gradients | None:
        """The gradients; None where these tensors need kernels of their own, or another device is current."""
        out, lse = saved.out, saved.lse
        of_dlse = zero(lse.device) if d_lse is None else d_lse
        at = (q.data_ptr(), k.data_ptr(), v.data_ptr(), d_out.data_ptr())
        row = (out.data_ptr(), of_dlse.data_ptr(), lse.data_ptr())
        together = at[0] | at[1] | at[2] | at[3] | row[0] | row[1] | row[2]
        if together % ALIGNMENT or torch.cuda.current_device() != self._device.index:
            return None
        last = self._ready
        if last is not None and (last[0] is exact or last[0] == exact):
            ready = last[1]
        else:
            found = self._filled((q, k, v, d_out, out, d_lse), positions, prepared)
            if found is None:
                return None
            ready, self._ready = found, (exact, found)
        dq, dk, dv = (None if make is None else make() for make in ready.gradients)
        assert dq is not None
        into = Gradients(dq, dk, dv)
        if positions.by_request:
            into.clear()
        row_stats = ready.row_stats()  # held until all is launched, else others would write there
        made = row_stats.data_ptr()
        run_again(ready.queries, (*at, row[0], row[1], dq.data_ptr(), row[2], made), prepared, self._device)
        if dk is not None and dv is not None:
            run_again(ready.keys, (*at, dk.data_ptr(), dv.data_ptr(), made), prepared, self._device)
        return into

    def _filled(
        self, tensors: tuple[torch.Tensor | None, ...], positions: Positions, prepared: Prepared
    ) -> _Ready | None:
        """The launches for tensors of these strides; None where they need other kernels."""
        q, k, v, *_ = tensors
        assert q is not None
        assert k is not None
        assert v is not None
        frame = Frame(positions, q.shape[0], self._heads, self._device)
        into = [torch.empty_like(q), *(torch.empty_like(one) if self._wants_keys else None for one in (k, v))]
        strides = [ZERO if one is None else one.stride()[:3] for one in (*tensors, *into)]
        of_q, of_k, of_v, of_do, of_out, of_dlse, of_dq, of_dk, of_dv = strides
        by_queries: tuple[Strides, ...] = (of_q, of_k, of_v, of_do, of_out, of_dlse, of_dq)
        queries = planned_again(self._queries, frame, self._scale, by_queries, prepared)
        keys: list[Launch] | None = []
        if self._wants_keys:
            keys = planned_again(self._keys, frame, self._scale, (of_q, of_k, of_v, of_do, of_dk, of_dv), prepared)
        if queries is None or keys is None:
            return None
        gradients = [None if one is None else OutputAllocator.like(one) for one in into]
        row_stats = OutputAllocator((*q.shape[:3], ROW_STATS), torch.float32, self._device)
        return _Ready(queries, keys, gradients, row_stats)


class _Ready(NamedTuple):
    """For tensors of just these shapes and strides.

    Attributes:
        queries: Launches of dq.
        keys: Launches of dk and dv.
        gradients: What makes dq, dk and dv; None for those that nobody asks for.
        row_stats: What makes that which dq leaves.
    """

    queries: list[Launch]
    keys: list[Launch]
    gradients: list[OutputAllocator | None]
    row_stats: OutputAllocator


def replayed_backward(
    request: Request, rows: Iterable[torch.Tensor | None], ran: Ran | None, wanted: tuple[bool, ...]
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
    again = may_run_again([*ran.queries, *ran.keys], read)
    return ReplayedBackward(request, ran, wanted) if again else None
