"""`Case`: a workload on a device, with random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from spattn.bench.options import Direction
from spattn.bench.workloads.workload import Mask, Setting, Workload

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
SEED = 0
CHUNK = 1 << 26
"""Pairs looked at at a time."""
BACKWARD = 2.5
"""Operations of the backward pass for one of the forward pass: five products for two."""


@dataclass(frozen=True)
class Case:
    """A workload on a device. What it holds is made when it is first asked for, and is the same each time.

    Attributes:
        dtype: Of q, k and v.
    """

    workload: Workload
    device: torch.device
    dtype: torch.dtype

    @cached_property
    def tensors(self) -> Mapping[str, Any]:
        """The pattern's run-time tensors."""
        return {name: one.to(self.device) for name, one in self.workload.tensors(self.workload.length).items()}

    @cached_property
    def mask(self) -> Mask:
        """The mask function."""
        one = self.workload
        return one.mask(Setting(one.length, one.q_heads, self.device, self.tensors))

    @cached_property
    def inputs(self) -> Inputs:
        """Random q, k, v, `[batch, heads, length, head_dim]`."""
        one = self.workload
        q, k, v = (self._random(heads, seed) for seed, heads in enumerate((one.q_heads, one.kv_heads, one.kv_heads)))
        return q, k, v

    @cached_property
    def dout(self) -> torch.Tensor:
        """A random gradient of the output."""
        return self._random(self.workload.q_heads, 3)

    @cached_property
    def pairs(self) -> int:
        """Allowed pairs of all heads and batch entries, exactly: by formula, or from the mask where data decides."""
        one = self.workload
        if one.by_head or self.tensors:
            parts = ((head, rows) for head in one.mask_heads for rows in self.chunks())
            found = sum(int(self.allowed(0, *part).sum()) for part in parts)
            return found * one.batch * (one.q_heads // len(one.mask_heads))
        return one.pattern.count(one.length, one.length) * one.batch * one.q_heads

    def operations(self, direction: Direction) -> float:
        """Operations that the pairs are: two products of two operations for each of head_dim numbers."""
        return 4.0 * self.pairs * self.workload.head_dim * (BACKWARD if direction is Direction.BACKWARD else 1.0)

    def leaves(self) -> Inputs:
        """q, k, v anew, on the same memory, as tensors that ask for a gradient."""
        q, k, v = (one.detach().requires_grad_() for one in self.inputs)
        return q, k, v

    def allowed(self, batch: int, head: int, rows: torch.Tensor) -> torch.Tensor:
        """The mask of some rows, `[rows, length]`."""
        b, h = (torch.tensor(i, device=self.device) for i in (batch, head))
        keys = torch.arange(self.workload.length, device=self.device)
        mask: torch.Tensor = self.mask(b, h, rows[:, None], keys[None])
        return mask.expand(len(rows), self.workload.length)

    def masks(self, rows: torch.Tensor) -> torch.Tensor:
        """The same of every head that differs, `[heads, rows, length]`."""
        return torch.stack([self.allowed(0, head, rows) for head in self.workload.mask_heads])

    def chunks(self) -> tuple[torch.Tensor, ...]:
        """All rows, so many at a time that their pairs with all keys fit into memory."""
        rows = torch.arange(self.workload.length, device=self.device)
        return torch.split(rows, max(1, CHUNK // self.workload.length))

    def _random(self, heads: int, seed: int) -> torch.Tensor:
        one = self.workload
        generator = torch.Generator(self.device).manual_seed(SEED + seed)
        shape = (one.batch, heads, one.length, one.head_dim)
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
