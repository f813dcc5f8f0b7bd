"""A call that has run, for later ones like it: of any lengths that its launch plans serve, then at just these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from spattn.call.positions import Numbers, out_strides, placed
from spattn.call.prepared import Prepared
from spattn.call.request import Request
from spattn.gpu.extent import Extent, Strides
from spattn.gpu.frame import Frame
from spattn.gpu.launch import Launch, Outputs
from spattn.gpu.output_allocator import OutputAllocator

ALIGNMENT = 16


def planned_again(
    launches: Sequence[Launch], frame: Frame, scale: float, strides: tuple[Strides, ...], prepared: Prepared
) -> list[Launch] | None:
    """What has run, with the integers of another call; None where its numbers ask for other kernels.

    Args:
        launches: A launch a group of heads.
        frame: The call's lengths.
        scale: Factor of its scores.
        strides: Of the operands.
        prepared: The pattern's tensors.
    """
    found = []
    for one in launches:
        inputs = one.inputs.at(frame) if one.inputs else one.inputs
        numbers = inputs.numbers(prepared) if inputs else one.extent.numbers
        extent = Extent(frame.positions, scale, strides, numbers)
        made = one.plan.at(extent)
        if made is None:
            return None
        found.append(Launch(one.plan, extent, made, one.heads, inputs))
    return found


def run_again(launches: Sequence[Launch], at: Sequence[int], prepared: Prepared, device: torch.device) -> None:
    """Launches on the current stream what has been compiled.

    Args:
        launches: A launch a group of heads.
        at: Addresses of the kind's tensors.
        prepared: The pattern's; what the launches read is derived from them.
        device: Where.
    """
    for one in launches:
        if one.launches.each:
            made = one.inputs.tensors(prepared) if one.inputs else ()
            heads = at[-1] if one.heads is None else one.heads.data_ptr()
            one.launches.again([*at, heads, *(tensor.data_ptr() for tensor in made)], device)


class ReplayedCall:
    """The launches of a request, for calls of its dtypes and device, of strides like its own, and of other lengths.

    Args:
        request: The call.
        launches: What ran for it, a launch a group of heads.
    """

    def __init__(self, request: Request, launches: Sequence[Launch]) -> None:
        self._launches, self._scale = list(launches), request.scale
        self._heads, self._width = request.q.shape[:2], request.v.shape[-1]
        self._by_request = request.positions.by_request
        self._dtype, self._device, self._index = request.q.dtype, request.q.device, request.q.device.index
        self._ready: tuple[Any, _Ready] | None = None

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prepared: Prepared, said: Numbers, numbers: Any
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(out, lse); None where these tensors need kernels of their own, or another device is current.

        Args:
            q: As the request's, of any length.
            k: As the request's, of any length.
            v: As k.
            prepared: The pattern's tensors.
            said: Where rows and keys stand, in numbers.
            numbers: Equal for calls of the same shapes, strides and positions in numbers.
        """
        at = [q.data_ptr(), k.data_ptr(), v.data_ptr()]
        if (at[0] | at[1] | at[2]) % ALIGNMENT or torch.cuda.current_device() != self._index:
            return None
        last = self._ready
        if last is not None and (last[0] is numbers or last[0] == numbers):
            ready = last[1]
        else:
            found = self._filled(q, k, v, prepared, said)
            if found is None:
                return None
            ready, self._ready = found, (numbers, found)
        out, lse = ready.out(), ready.lse()
        if self._by_request:
            Outputs(out, lse).clear()
        at += (out.data_ptr(), lse.data_ptr())
        run_again(ready.launches, at, prepared, self._device)
        return out, lse

    def _filled(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prepared: Prepared, said: Numbers
    ) -> _Ready | None:
        (batch, heads), q_len = self._heads, q.shape[2]
        frame = Frame(placed(said, self._by_request, q_len, k.shape[2]), batch, heads, self._device)
        shape = batch, heads, q_len, self._width
        of_out = out_strides(shape, packed="cu_seqlens_q" in self._by_request)
        strides = (q.stride()[:3], k.stride()[:3], v.stride()[:3], of_out[:3])
        launches = planned_again(self._launches, frame, self._scale, strides, prepared)
        if launches is None:
            return None
        out = OutputAllocator(shape, self._dtype, self._device, of_out)
        return _Ready(launches, out, OutputAllocator((batch, heads, q_len), torch.float32, self._device))


class _Ready(NamedTuple):
    """Launches for tensors of just these shapes and strides, and what makes their outputs."""

    launches: list[Launch]
    out: OutputAllocator
    lse: OutputAllocator


def replayed(request: Request, launches: Sequence[Launch]) -> ReplayedCall | None:
    """The launches for later calls; None where each call has to be looked at."""
    again = may_run_again(launches, (request.q, request.k, request.v))
    return ReplayedCall(request, launches) if again and request.scale > 0 else None


def may_run_again(launches: Sequence[Launch], tensors: Sequence[torch.Tensor]) -> bool:
    """May what ran on these tensors run again for others that are aligned?"""
    aligned = all(tensor.data_ptr() % ALIGNMENT == 0 for tensor in tensors)
    return aligned and bool(launches) and all(one.launches.compiled for one in launches)
