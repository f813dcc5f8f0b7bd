"""torch's `scaled_dot_product_attention`, over all slots of dense caches, or over needed keys that lie packed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from spattn.bench.decode.case import DecodeCase
from spattn.bench.decode.peers.peer import DecodePeer, Ready
from spattn.bench.decode.workload import Numbers, Stored
from spattn.bench.peers.peer import Kind
from spattn.serving import Storage

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class AllKeys(DecodePeer):
    """All keys of a dense cache, whatever the pattern: what it costs to ignore it. By cuDNN."""

    name: str = "cuDNN dense"
    masked: bool = False

    def missing(self, device: torch.device) -> str | None:
        """cuDNN has kernels for NVIDIA's GPUs."""
        return None if self.masked or device.type == "cuda" else "it runs on GPUs"

    def refusal(self, case: DecodeCase) -> str | None:
        """It reads dense caches of the dtype of q."""
        if case.workload.stored is not Stored.DENSE:
            return "it reads dense caches"
        return _no_float8(case)

    def prepare(self, case: DecodeCase) -> Ready:
        """Rows that differ, and requests of different lengths, take a mask: `[batch or 1, 1, new, length]`."""
        q, causal = case.q, not self.masked
        pairs = [(cache.keys.transpose(1, 2), cache.values.transpose(1, 2)) for cache in case.caches]
        plain = causal and case.workload.uniform
        bias = [None if plain else case.bias(causal=causal)]

        def renew() -> None:
            bias[0] = None if plain else case.bias(causal=causal)

        def step(layer: int) -> torch.Tensor:
            return _attend(q, *pairs[layer], bias[0])

        exact = self.masked or case.workload.pattern.dense
        return Ready(step, renew, exact, nullcontext if self.masked else _by_cudnn(case))


@dataclass(frozen=True)
class PackedKeys(DecodePeer):
    """The needed keys alone, from where somebody has put them side by side. By cuDNN on a GPU.

    Nobody who decodes has them so without a copy in each step: it is what a kernel costs that goes through as many.
    """

    name: str = "packed SDPA"
    kind: Kind = Kind.OTHER

    def refusal(self, case: DecodeCase) -> str | None:
        """All rows go through the same number of keys."""
        one = case.workload
        if one.new > 1:
            return "rows of a request need different keys"
        if one.ragged:
            return "requests need different numbers of keys"
        if one.pattern.dense and one.stored is Stored.DENSE:
            return "a dense pattern's keys lie packed as they are"
        return _no_float8(case)

    def prepare(self, case: DecodeCase) -> Ready:
        """Packs the keys of all layers; where lengths have changed each layer has to pack anew, and one is timed."""
        q, caches = case.q, case.caches
        pairs = [_packed(cache, case) for cache in caches]

        def renew() -> None:
            pairs[0] = _packed(caches[0], case)

        return Ready(lambda layer: _attend(q, *pairs[layer], None), renew, within=_by_cudnn(case))


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return scaled_dot_product_attention(q, k, v, attn_mask=bias, enable_gqa=True)


def _packed(cache: Storage, case: DecodeCase) -> Pair:
    """`[batch, kv_heads, needed keys, head_dim]` of keys and of values."""
    positions = case.needed[0].positions
    requests = torch.arange(cache.batch_size, device=cache.device)[:, None]
    blocks, slots = cache.places(requests.expand(-1, len(positions)), positions.expand(cache.batch_size, -1))
    k, v = (stored[blocks, slots].transpose(1, 2).contiguous() for stored in (cache.keys, cache.values))
    return k, v


def _by_cudnn(case: DecodeCase) -> Callable[[], AbstractContextManager[Any]]:
    return (lambda: sdpa_kernel(SDPBackend.CUDNN_ATTENTION)) if case.device.type == "cuda" else nullcontext


def _no_float8(case: DecodeCase) -> str | None:
    return "its keys are of the dtype of q" if case.workload.numbers is Numbers.FP8 else None
