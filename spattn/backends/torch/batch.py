"""A batch: row tiles with equally many keys, as tensors.

Only the keys of partial visits have masks, so that masks grow with the pattern's borders and not with its area.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spattn.expressions.evaluation import BoolArray, IntArray

GAP = 8  # so many columns have a mask that need none, rather than that there are two masks


@dataclass(frozen=True)
class Batch:
    """Row tiles with equally many keys; rows and keys are indices into q and k.

    Attributes:
        rows: [tiles, M].
        keys: [tiles, N].
        span: (first, step) where the keys are `first + step * tile + column`, so that a view holds them; else None.
        masks: (first column, [tiles, M, columns]): -inf where a pair is not allowed and else 0, since to add is several
            times as fast as to fill; [1, M, columns] where all tiles have the same.
        lost: [tiles, M], rows that are not stored; None where all are.
        empty: [tiles, M], rows without a key in this batch; None where each has one.
        stored: Indices of the flattened rows that are stored; None for all.
        fresh: Nothing was stored for these rows before.
    """

    rows: Tensor
    keys: Tensor
    span: tuple[int, int] | None
    masks: tuple[tuple[int, Tensor], ...]
    lost: Tensor | None
    empty: Tensor | None
    stored: Tensor | None
    fresh: bool

    @staticmethod
    def of(
        rows: IntArray, kept: BoolArray, keys: IntArray, allowed: BoolArray, device: torch.device, *, fresh: bool
    ) -> Batch:
        """A batch on a device.

        Args:
            rows: [tiles, M].
            kept: [tiles, M], rows that are stored.
            keys: [tiles, N].
            allowed: [tiles, M, n], of the first n keys; with the others each row is paired.
            device: Where it goes.
            fresh: Nothing was stored for these rows before.
        """

        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        empty = ~allowed.any(2) & ~(kept & (keys.shape[1] > allowed.shape[2]))
        order, span = _ascending(keys)
        return Batch(
            tensor(rows),
            tensor(keys[:, order]),
            span,
            tuple((first, tensor(mask)) for first, mask in _masks(allowed, order)),
            None if kept.all() else tensor(~kept),
            tensor(empty) if empty.any() else None,
            None if kept.all() else tensor(np.flatnonzero(kept)),
            fresh,
        )

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        tensors = (self.rows, self.keys, *(mask for _, mask in self.masks), self.lost, self.empty, self.stored)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _ascending(keys: IntArray) -> tuple[IntArray, tuple[int, int] | None]:
    """The order of columns in which the keys are adjacent, and their span; as they are where no order does it."""
    tiles, count = keys.shape
    order = np.argsort(keys[0])
    found = keys[:, order]
    first = found[:, :1]
    step = int(first[1, 0] - first[0, 0]) if tiles > 1 else 0
    even = step >= 0 and bool((first == first[0] + step * np.arange(tiles)[:, None]).all())
    if even and (found == first + np.arange(count)).all():
        return order, (int(first[0, 0]), step)
    return np.arange(count), None


def _masks(allowed: BoolArray, order: IntArray) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first column, mask) of each run of columns, in their order, in which a pair is not allowed."""
    some = np.zeros(len(order), np.bool_)
    some[: allowed.shape[2]] = ~allowed.all((0, 1))
    columns = np.flatnonzero(some[order])
    for run in np.split(columns, np.flatnonzero(np.diff(columns) > GAP) + 1) if len(columns) else []:
        # no key of a full visit is among them, since visits are wider than a gap
        part = allowed[:, :, order[run[0] : run[-1] + 1]]
        part = part[:1] if (part == part[:1]).all() else part
        yield int(run[0]), np.where(part, np.float32(0), np.float32(-np.inf))
