"""FlashAttention-4, where it is installed: causal attention, dense or in a window."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from spattn.bench.case import Case
from spattn.bench.peers.peer import Kind, Peer, Prepared

MODULE = "flash_attn.cute"


@dataclass(frozen=True)
class FlashAttention4(Peer):
    """The CuTe kernels of the package `flash-attn-4`."""

    name: str = "FlashAttention-4"
    kind: Kind = Kind.OTHER

    def missing(self, device: torch.device) -> str | None:
        """It is a package of its own, for GPUs."""
        return None if installed() else "not installed"

    def refusal(self, case: Case) -> str | None:
        """Here it serves windows only."""
        return "serves causal windows only" if case.workload.window is None else None

    def prepare(self, case: Case) -> Prepared:
        """Nothing. Heads stand behind tokens in its tensors, which strides express."""
        function: Any = importlib.import_module(f"{MODULE}.interface").flash_attn_func
        one = case.workload
        window = (None, None) if one.dense or one.window is None else (one.window - 1, 0)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            parts = (x.transpose(1, 2) for x in (q, k, v))
            found = function(*parts, causal=True, window_size=window)
            out: torch.Tensor = found[0] if isinstance(found, tuple) else found
            return out.transpose(1, 2)

        return Prepared(attend)


@cache
def installed() -> bool:
    """Can it be imported? Asked without importing it."""
    try:
        return importlib.util.find_spec(MODULE) is not None
    except ModuleNotFoundError:
        return False
