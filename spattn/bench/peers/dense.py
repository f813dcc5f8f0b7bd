"""torch's own `scaled_dot_product_attention` over all pairs: by cuDNN, or with a dense mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from spattn.bench.case import Case
from spattn.bench.peers.peer import Kind, Peer, Prepared
from spattn.bench.timing import once

MAX_MASK = 1 << 31


@dataclass(frozen=True)
class DenseCudnn(Peer):
    """cuDNN over all pairs, or all causal ones: what it costs to ignore the pattern."""

    name: str = "cuDNN dense"
    kind: Kind = Kind.OTHER

    def missing(self, device: torch.device) -> str | None:
        """It has kernels for NVIDIA's GPUs."""
        return None if device.type == "cuda" else "it runs on GPUs"

    def prepare(self, case: Case) -> Prepared:
        """Nothing; the answer is one where the pattern is dense."""
        one = case.workload

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return scaled_dot_product_attention(q, k, v, is_causal=one.causal, enable_gqa=one.grouped)

        return Prepared(attend, exact=one.dense, within=lambda: sdpa_kernel(SDPBackend.CUDNN_ATTENTION))


@dataclass(frozen=True)
class MaskedDense(Peer):
    """All pairs, those that are not allowed masked."""

    name: str = "masked SDPA"

    def refusal(self, case: Case) -> str | None:
        """Its mask is dense."""
        size = mask_bytes(case)
        return None if size <= MAX_MASK else f"its mask alone is {size / 2**30:.0f} GiB"

    def prepare(self, case: Case) -> Prepared:
        """Builds the mask, `[heads that differ, length, length]`."""
        found: list[torch.Tensor] = []
        taken = once(lambda: found.append(_mask(case)), case.device)
        mask, grouped = found[0], case.workload.grouped

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)

        return Prepared(attend, first_ms=taken, kept_bytes=mask.nbytes)


def mask_bytes(case: Case) -> int:
    """Of a dense mask."""
    return case.workload.length**2 * len(case.workload.mask_heads)


def _mask(case: Case) -> torch.Tensor:
    return torch.cat([case.masks(rows) for rows in case.chunks()], dim=1)
