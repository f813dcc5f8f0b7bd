"""Where each request of a call stands and lies, as kernels read it: derived on the device, for which nobody waits."""

from __future__ import annotations

import torch

from spattn.call.prepared import Prepared
from spattn.gpu import derivations
from spattn.gpu.frame import Frame

WIDTH = 8
"""Of a request q_len, kv_len, q_offset, k_offset, num_keys; where its rows and its keys begin; its batch entry."""


def request_table(frame: Frame, prepared: Prepared) -> torch.Tensor:
    """int32 `[requests, WIDTH]`, derived once a call."""
    at = frame.positions
    given = {name: prepared[name] for name in at.by_request}

    def made() -> torch.Tensor:
        sources = [given[name] for name in at.by_request]
        count = given["cu_seqlens_q"].shape[0] - 1 if at.is_packed else frame.entries
        return derivations.requests(at, given, count)(*sources)

    return prepared.derived(("requests", at, frame.entries), at.by_request, made)
