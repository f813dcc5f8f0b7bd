"""A small language model over bytes that decodes with caches: rotary positions, RMSNorm, grouped queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spattn.serving import Decoder, Storage

BYTES = 256


@dataclass(frozen=True)
class Sizes:
    """Of a model."""

    depth: int = 2
    num_q_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 32

    @property
    def width(self) -> int:
        """Of what the blocks read and write."""
        return self.num_q_heads * self.head_dim


class Model(nn.Module):
    """Predicts the next byte, its keys and values in a cache a block."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, sizes.width)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.head = nn.Sequential(nn.RMSNorm(sizes.width), nn.Linear(sizes.width, BYTES, bias=False))

    def forward(self, tokens: Tensor, position: int, step: Decoder, caches: Sequence[Storage]) -> Tensor:
        """Logits `[batch, BYTES]` after tokens `[batch]` that stand at a position; the caches grow by one."""
        x = self.embedding(tokens)[:, None]
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, position, step, cache)
        logits: Tensor = self.head(x)[:, 0]
        return logits


class Block(nn.Module):
    """Attention over a cache, then a perceptron, each added to what it reads: `[batch, 1, width]`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, self.heads = sizes.width, (sizes.num_q_heads, sizes.num_kv_heads, sizes.num_kv_heads)
        self.qkv = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, sum(self.heads) * sizes.head_dim, bias=False))
        self.out = nn.Linear(width, width, bias=False)
        wide = nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        self.perceptron = nn.Sequential(nn.RMSNorm(width), *wide)

    def forward(self, x: Tensor, position: int, step: Decoder, cache: Storage) -> Tensor:
        """What the next block reads."""
        each = self.qkv(x).unflatten(-1, (sum(self.heads), -1)).transpose(1, 2)
        q, k, v = each.split(self.heads, 1)
        cache.append(rotated(k, position), v)
        x = x + self.out(step(rotated(q, position).contiguous(), cache).transpose(1, 2).flatten(2))
        changed: Tensor = x + self.perceptron(x)
        return changed


def rotated(x: Tensor, position: int) -> Tensor:
    """Rotary positions: pairs of channels, turned by angles that grow with the position."""
    angles = position * 10000 ** -torch.linspace(0, 1, x.shape[-1] // 2, device=x.device, dtype=torch.float64)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    left, right = x.chunk(2, -1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)
