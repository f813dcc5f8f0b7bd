"""FlexAttention's decode kernel, compiled; its block mask is built before the timing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from spattn.bench.decode.case import DecodeCase
from spattn.bench.decode.peers.peer import DecodePeer, Ready
from spattn.bench.decode.workload import Numbers, Stored
from spattn.bench.peers.flex import allow_many


@dataclass(frozen=True)
class FlexDecode(DecodePeer):
    """FlexAttention. Its mask function reads the lengths, so that new ones compile nothing."""

    name: str = "FlexAttention"

    def missing(self, device: torch.device) -> str | None:
        """On a CPU it takes a compiler of C++, and minutes."""
        return None if device.type == "cuda" else "here it runs on GPUs"

    def refusal(self, case: DecodeCase) -> str | None:
        """It reads dense caches of the dtype of q."""
        if case.workload.stored is not Stored.DENSE:
            return "here it reads dense caches"
        return "its keys are of the dtype of q" if case.workload.numbers is Numbers.FP8 else None

    def prepare(self, case: DecodeCase) -> Ready:
        """Builds the mask; new lengths build it again."""
        allow_many()
        one, q = case.workload, case.q
        create, flex = torch.compile(create_block_mask), torch.compile(flex_attention, dynamic=False)
        mask_mod, batch = mask_function(case), one.batch if one.ragged else None
        mask: list[Any] = [None]
        pairs = [(cache.keys.transpose(1, 2), cache.values.transpose(1, 2)) for cache in case.caches]

        def renew() -> None:
            mask[0] = create(mask_mod, batch, None, one.new, one.length, device=str(case.device))

        def step(layer: int) -> torch.Tensor:
            out: torch.Tensor = flex(q, *pairs[layer], block_mask=mask[0], enable_gqa=True)
            return out

        renew()
        return Ready(step, renew)


def mask_function(case: DecodeCase) -> Any:
    """(b, h, row, slot) -> may they meet?"""
    lens, new, allowed = case.lengths.tensor, case.workload.new, case.workload.pattern.mask
    return lambda b, h, q, k: allowed(lens[b] - new + q, k)
