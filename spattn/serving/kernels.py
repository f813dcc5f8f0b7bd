"""Decode steps by generated kernels: one launch a step and group of heads, and nothing is read on the host."""

from __future__ import annotations

import math

from torch import Tensor

from spattn.attend import Attention
from spattn.errors import ArgumentError, UnsupportedError
from spattn.gpu.decoding import GpuDecoder
from spattn.gpu.step import StepSizes, StepTensors
from spattn.serving.step import Step


class Kernels:
    """Decode steps of a pattern, by its kernels.

    Args:
        attention: What is computed.
        sizes: What steps may have.
    """

    def __init__(self, attention: Attention, sizes: StepSizes) -> None:
        self._calls, self._sizes = attention.calls(), sizes
        self._decoder, self._positions = GpuDecoder(attention, sizes), sizes.positions

    def __call__(self, step: Step) -> None:
        """Writes out, and lse where it is wanted; a request that is longer than it may be has NaN."""
        sizes = self._sizes
        requests = step.cache.kv_lens.shape[0]
        tensors = self._calls.tensors(step.tensors, step.q.device, requests, sizes.num_q_heads, self._positions)
        q, out, lse, packed = step.q, step.out, step.lse, step.cu_seqlens_q is not None
        if packed:
            most = sizes.max_batch * sizes.max_new
            if q.shape[0] > most:
                raise ArgumentError("E060", f"q has {q.shape[0]} rows; max_batch * max_new is {most}")
            q, out = _by_head(q), _by_head(out)
            lse = None if lse is None else lse.unsqueeze(0)
        if step.shared_keys:
            why = self._decoder.shared_refusal()
            if why is not None:
                raise UnsupportedError("E061", why, hint="leave out shared_keys")
        scale = 1 / math.sqrt(sizes.head_dim) if step.scale is None else float(step.scale)
        if scale <= 0:  # kernels take the greatest score before they scale
            q, scale = q * (scale and -1), -scale or 1.0
        sinks = None if step.sinks is None else step.sinks.detach().float().contiguous()
        q = q if q.stride(-1) == 1 or q.shape[-1] == 1 else q.contiguous()
        dense = out if out.stride(-1) == 1 or out.shape[-1] == 1 else out.contiguous()
        self._decoder.run(
            StepTensors(q, dense, lse, step.cu_seqlens_q, sinks, scale, step.shared_keys), step.cache, tensors
        )
        if dense is not out:
            out.copy_(dense)


def _by_head(rows: Tensor) -> Tensor:
    """Packed rows `[tokens, heads, dim]` as `[1, heads, tokens, dim]`."""
    return rows.transpose(0, 1).unsqueeze(0)
