"""A small language model over bytes, made like the large ones: rotary positions, RMSNorm, no biases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From q, k, v, each `[batch, heads, length, head_dim]`, to what is attended."""
BYTES = 256


class Model(nn.Module):
    """Predicts each byte from those before it; one block for each of `attends`."""

    def __init__(self, width: int, heads: int, attends: Sequence[Attend]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, width)
        self.blocks = nn.Sequential(*(Block(width, heads, attend) for attend in attends))
        self.head = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, BYTES, bias=False))

    def forward(self, sequences: Tensor) -> Tensor:
        """The mean loss over `[batch, length + 1]` bytes, in nats a byte."""
        scores = self.head(self.blocks(self.embedding(sequences[:, :-1])))
        return nn.functional.cross_entropy(scores.flatten(0, 1), sequences[:, 1:].flatten())


class Block(nn.Module):
    """Attention, then a perceptron, each added to what it reads: `[batch, length, width]`."""

    def __init__(self, width: int, heads: int, attend: Attend) -> None:
        super().__init__()
        self.heads, self.attend = heads, attend
        self.qkv = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, 3 * width, bias=False))
        self.out = nn.Linear(width, width, bias=False)
        wide = nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        self.perceptron = nn.Sequential(nn.RMSNorm(width), *wide)

    def forward(self, x: Tensor) -> Tensor:
        """What the next block reads."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(self.attend(rotated(q), rotated(k), v).transpose(1, 2).flatten(2))
        changed: Tensor = x + self.perceptron(x)
        return changed


def rotated(x: Tensor) -> Tensor:
    """Rotary positions: pairs of channels, turned by angles that grow with the position."""
    length, head_dim = x.shape[-2:]
    speeds = 10000 ** -torch.linspace(0, 1, head_dim // 2, device=x.device)
    angles = torch.arange(length, device=x.device)[:, None] * speeds
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    left, right = x.chunk(2, -1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], -1)
