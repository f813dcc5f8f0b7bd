"""FlashInfer, where it is installed: dense patterns and windows over pages.

A window with sinks is two calls, one of the last keys and one of the first pages, whose answers it merges.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from spattn.bench.decode.case import DecodeCase
from spattn.bench.decode.layers import K_SCALE, V_SCALE
from spattn.bench.decode.peers.peer import DecodePeer, Ready
from spattn.serving import Storage

MODULE = "flashinfer"
WORKSPACE = 256 << 20
TENSOR_CORES = 4
"""Query heads of a key head from which on its documentation recommends them."""


@dataclass(frozen=True)
class FlashInfer(DecodePeer):
    """The paged wrappers of the package `flashinfer-python`; they compile when they are first planned."""

    name: str = "FlashInfer"

    def missing(self, device: torch.device) -> str | None:
        """It is a package of its own, for GPUs."""
        return None if importlib.util.find_spec(MODULE) is not None else "not installed"

    def refusal(self, case: DecodeCase) -> str | None:
        """It reads pages; sinks are a call of their own, which may not meet the window's keys."""
        one = case.workload
        if not one.stored.page_size:
            return "it reads pages"
        if not one.pattern.dense and one.pattern.window is None:
            return "serves causal attention and windows"
        if one.pattern.sinks and min(one.lengths) < (one.pattern.window or 0) + one.pattern.sinks + one.new:
            return "a request is so short that its sinks lie in its window"
        return None

    def prepare(self, case: DecodeCase) -> Ready:
        """Plans; new lengths are planned again, once for all layers."""
        module: Any = importlib.import_module(MODULE)
        pattern, rows = case.workload.pattern, case.q.transpose(1, 2).flatten(0, 1).contiguous()
        last = Planned(module, case, -1 if pattern.window is None else pattern.window - 1)
        last.plan(case.lengths.numbers)
        first = Planned(module, case, -1, causal=False) if pattern.sinks else None
        if first is not None:
            first.plan([pattern.sinks] * case.workload.batch)

        def step(layer: int) -> torch.Tensor:
            cache = case.caches[layer]
            if first is None:
                return _whole(last.run(rows, cache), case)
            parts = (*last.run(rows, cache, return_lse=True), *first.run(rows, cache, return_lse=True))
            return _whole(module.merge_state(*parts)[0], case)

        return Ready(step, lambda: last.plan(case.lengths.numbers))


class Planned:
    """A wrapper, planned for requests of some lengths.

    Args:
        module: FlashInfer.
        case: Whose pages are read.
        window_left: Keys before a row that it needs; -1 for all.
        causal: Does a row need no key behind it?
    """

    def __init__(self, module: Any, case: DecodeCase, window_left: int, *, causal: bool = True) -> None:
        self._case, self._window_left, self._causal = case, window_left, causal
        one = case.workload
        workspace = torch.zeros(WORKSPACE, dtype=torch.uint8, device=case.device)
        if one.new == 1:
            cores = one.q_heads // one.kv_heads >= TENSOR_CORES
            self._wrapper = module.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=cores)
        else:
            self._wrapper = module.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")

    def plan(self, lengths: Sequence[int]) -> None:
        """What the host does for new lengths."""
        case, one, size = self._case, self._case.workload, self._case.workload.stored.page_size
        table = case.caches[0].table
        assert table is not None
        pages = [-(-n // size) for n in lengths]
        ends = torch.tensor([0, *pages], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        indices = torch.cat([row[:count] for row, count in zip(table, pages, strict=True)])
        filled = torch.tensor([(n - 1) % size + 1 for n in lengths], dtype=torch.int32)
        sizes = (one.q_heads, one.kv_heads, one.head_dim, size)
        dtypes = {"q_data_type": case.dtype, "kv_data_type": case.caches[0].dtype}
        plan: Callable[..., None] = self._wrapper.plan
        if one.new == 1:
            plan(ends, indices, filled, *sizes, window_left=self._window_left, **dtypes)
            return
        rows = torch.arange(one.batch + 1, dtype=torch.int32) * one.new
        plan(rows, ends, indices, filled, *sizes, causal=self._causal, window_left=self._window_left, **dtypes)

    def run(self, rows: torch.Tensor, cache: Storage, *, return_lse: bool = False) -> Any:
        """out `[rows, q_heads, head_dim]`, and its lse if that is wanted."""
        scales = {} if cache.k_scale is None else {"k_scale": K_SCALE, "v_scale": V_SCALE}
        return self._wrapper.run(rows, (cache.keys, cache.values), return_lse=return_lse, **scales)


def _whole(out: torch.Tensor, case: DecodeCase) -> torch.Tensor:
    """`[batch, q_heads, new, head_dim]` of packed rows."""
    return out.view(case.workload.batch, case.workload.new, *out.shape[1:]).transpose(1, 2)
