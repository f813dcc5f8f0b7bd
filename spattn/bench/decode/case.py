"""`DecodeCase`: a decode workload on a device, with random queries and caches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from spattn.bench.decode.layers import Layers, layers_of
from spattn.bench.decode.workload import DecodeWorkload
from spattn.serving import Storage

SEED = 5


class Lengths:
    """Tokens that requests hold: on the device, and as the host knows them.

    Attributes:
        tensor: int32 `[batch]`, which all caches share.
        numbers: The same.
    """

    def __init__(self, numbers: list[int], device: torch.device) -> None:
        self.numbers = numbers
        self.tensor = torch.tensor(numbers, dtype=torch.int32, device=device)

    def shift(self, by: int) -> None:
        """So many tokens more in each request."""
        self.numbers = [n + by for n in self.numbers]
        self.tensor.add_(by)


@dataclass(frozen=True)
class Needed:
    """What the rows of a request need of it.

    Attributes:
        positions: The keys that any of its rows needs, ascending, `[keys]`.
        mask: Which row needs which of them, `[new, keys]`.
    """

    positions: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class DecodeCase:
    """A workload on a device. What it holds is made when it is first asked for, and is the same each time.

    Attributes:
        dtype: Of q and out.
    """

    workload: DecodeWorkload
    device: torch.device
    dtype: torch.dtype

    @cached_property
    def lengths(self) -> Lengths:
        """Tokens of each request."""
        return Lengths(self.workload.lengths, self.device)

    @cached_property
    def q(self) -> torch.Tensor:
        """Random queries, `[batch, q_heads, new, head_dim]`."""
        one = self.workload
        generator = torch.Generator(self.device).manual_seed(SEED)
        shape = one.batch, one.q_heads, one.new, one.head_dim
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)

    @cached_property
    def needed(self) -> tuple[Needed, ...]:
        """By request; those of one length share it."""
        found = {n: self._needed(n) for n in sorted(set(self.workload.lengths))}
        return tuple(found[n] for n in self.workload.lengths)

    @cached_property
    def layers(self) -> Layers:
        """The caches.

        Raises:
            TooLargeError: They do not fit into the device.
        """
        positions = [one.positions for one in self.needed]
        return layers_of(self.workload, self.dtype, self.lengths.tensor, positions)

    @property
    def caches(self) -> list[Storage]:
        """Of all layers."""
        return list(self.layers.caches)

    @property
    def keys(self) -> int:
        """Needed keys of all requests: of a request, those that any of its rows needs."""
        return sum(len(one.positions) for one in self.needed)

    @property
    def needed_bytes(self) -> int:
        """Of needed keys and values, of all key heads."""
        one = self.workload
        return 2 * self.keys * one.kv_heads * one.head_dim * self.layers.caches[0].dtype.itemsize

    def bias(self, *, causal: bool) -> torch.Tensor:
        """0 or -inf, to be added to scores over all slots, of the pattern or causal: `[batch or 1, 1, new, length]`."""
        numbers = self.lengths.tensor if self.workload.ragged else self.lengths.tensor[:1]
        rows = torch.arange(self.workload.new, device=self.device) - self.workload.new
        q = (numbers[:, None] + rows)[:, None, :, None]
        k = torch.arange(self.workload.length, device=self.device)
        allowed = q >= k if causal else self.workload.pattern.mask(q, k)
        return torch.zeros_like(allowed, dtype=self.dtype).masked_fill_(~allowed, -torch.inf)

    def _needed(self, length: int) -> Needed:
        mask = self.workload.compiled.mask(self.workload.new, length).to(self.device)
        positions = mask.any(0).nonzero()[:, 0]
        return Needed(positions, mask[:, positions])
