"""spattn's decoder as a peer, by one of its backends."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from spattn.attend import compile as compiled
from spattn.bench.decode.case import DecodeCase
from spattn.bench.decode.peers.peer import DecodePeer, Ready
from spattn.bench.peers.peer import Kind


@dataclass(frozen=True)
class SpattnDecoder(DecodePeer):
    """spattn; what a backend cannot do it says when the decoder is made."""

    name: str = "spattn"
    kind: Kind = Kind.OURS
    backend: str = "triton"

    def prepare(self, case: DecodeCase) -> Ready:
        """A decoder. New lengths are a tensor's new numbers: there is nothing to renew."""
        one, caches, q = case.workload, case.caches, case.q
        decoder = compiled(one.compiled, backend=self.backend).decoder(
            num_q_heads=one.q_heads,
            num_kv_heads=one.kv_heads,
            head_dim=one.head_dim,
            max_batch=one.batch,
            max_kv_len=one.length,
            max_new=one.new,
            dtype=case.dtype,
            device=case.device,
        )
        out = torch.empty_like(q)

        def step(layer: int) -> torch.Tensor:
            found: torch.Tensor = decoder(q, caches[layer], out=out)
            return found

        return Ready(step)
