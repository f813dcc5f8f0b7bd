"""FlashAttention-4, where it is installed: dense patterns, over dense caches and pages."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch

from spattn.bench.decode.case import DecodeCase
from spattn.bench.decode.peers.peer import DecodePeer, Ready
from spattn.bench.decode.workload import Numbers, Stored
from spattn.bench.peers.flash import MODULE, installed
from spattn.serving import Storage


@dataclass(frozen=True)
class FlashDecode(DecodePeer):
    """The CuTe kernels of the package `flash-attn-4`."""

    name: str = "FlashAttention-4"

    def missing(self, device: torch.device) -> str | None:
        """It is a package of its own, for GPUs."""
        return None if installed() else "not installed"

    def refusal(self, case: DecodeCase) -> str | None:
        """Windows with sinks it has not."""
        one = case.workload
        if not one.pattern.dense:
            return "serves causal attention and windows without sinks"
        if one.stored is Stored.RING:
            return "it reads no ring"
        return "here its keys are of the dtype of q" if one.numbers is Numbers.FP8 else None

    def prepare(self, case: DecodeCase) -> Ready:
        """Nothing: lengths are a tensor. Heads stand behind tokens in its tensors, which strides express."""
        function: Any = importlib.import_module(f"{MODULE}.interface").flash_attn_varlen_func
        q, lens, caches = case.q.transpose(1, 2).contiguous(), case.lengths.tensor, case.caches

        def attend(cache: Storage) -> torch.Tensor:
            pages = {} if cache.table is None else {"page_table": cache.table}
            found = function(q, cache.keys, cache.values, seqused_k=lens, causal=True, **pages)
            out: torch.Tensor = found[0] if isinstance(found, tuple) else found
            return out.transpose(1, 2)

        return Ready(lambda layer: attend(caches[layer]))
