"""Whom a launch serves: pairs of batch entry and head, all of them or those of a group."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from spattn.call.request import Request


@dataclass(frozen=True)
class Heads:
    """Pairs of batch entry and head.

    Attributes:
        count: How many.
        listed: int32 as bytes, what kernels read where these are not all pairs; else None.
    """

    count: int
    listed: bytes | None = None

    def on(self, device: torch.device) -> torch.Tensor | None:
        """The list on a device, sent there once."""
        return None if self.listed is None else sent(self.listed, device)


def query_heads(request: Request, pairs: NDArray[np.int64] | None) -> Heads:
    """Pairs `b * num_q_heads + h`, all if None."""
    if pairs is None:
        return Heads(request.batch_size * request.num_q_heads)
    return Heads(len(pairs), pairs.astype(np.int32).tobytes())


def key_heads(request: Request, pairs: NDArray[np.int64] | None) -> Heads:
    """The pairs `b * num_kv_heads + kv_head` that are read by some of `b * num_q_heads + h`.

    Listed are (pair, where its query heads begin, how many there are) for each, then query heads.
    """
    kv_heads = request.num_kv_heads
    if pairs is None:
        return Heads(request.batch_size * kv_heads)
    own, first, size = np.unique(key_pairs(request, pairs), return_index=True, return_counts=True)
    entries = np.stack([own, first + 3 * len(own), size], 1)
    listed = np.concatenate([entries.ravel(), pairs % request.num_q_heads])
    return Heads(len(own), listed.astype(np.int32).tobytes())


def key_pairs(request: Request, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """`b * num_kv_heads + kv_head` of ascending pairs `b * num_q_heads + h`, ascending."""
    return pairs // request.group_size


@lru_cache(maxsize=256)
def sent(listed: bytes, device: torch.device) -> torch.Tensor:
    """int32 numbers on a device, sent there once."""
    return torch.from_numpy(np.frombuffer(listed, np.int32).copy()).to(device)
