"""The work of runs in pieces: a batch, and views of the heads that it serves, few enough to stay in a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from spattn.backends.torch.batch import Batch
from spattn.backends.torch.runs import Run

LIMIT = {"cpu": 8 << 20}
"""Bytes of scores and gathered keys at a time: what a processor's caches hold, 64 MiB elsewhere."""


def pieces(
    runs: list[Run], rows: Sequence[Tensor], keys: Sequence[Tensor]
) -> Iterator[tuple[list[Tensor], list[Tensor], Batch]]:
    """Each batch with views of tensors that have query heads, and of those that have key heads.

    Args:
        runs: What to do.
        rows: [batch, heads, q_len, ..], seen as [entries, kv heads, members, q_len, ..].
        keys: [batch, kv heads, kv_len, ..], seen as [entries, kv heads, kv_len, ..].
    """
    kv_heads = keys[0].shape[1]
    for run in runs:
        of_rows, of_keys = [x[:, :, run.rows] for x in rows], [x[:, :, run.keys] for x in keys]
        parts = [([p.of_rows(x, kv_heads) for x in of_rows], [p.of_keys(x) for x in of_keys]) for p in run.parts]
        for batch in run.batches():
            for of_rows, of_keys in parts:
                for entries, heads in _head_slices(of_rows[0].shape, of_keys, batch):
                    yield [x[entries, heads] for x in of_rows], [x[entries, heads] for x in of_keys], batch


def _head_slices(shape: torch.Size, keys: list[Tensor], batch: Batch) -> Iterator[tuple[slice, slice]]:
    """Slices of entries and key heads whose scores and gathered keys together stay below the limit, or single ones."""
    entries, kv_heads, members = shape[:3]
    tiles, width = batch.rows.shape
    one = 4 * batch.keys.numel() * (members * width + keys[0].shape[-1] + keys[1].shape[-1])
    most = max(LIMIT.get(batch.keys.device.type, 64 << 20) // max(one, 1), 1)
    step = max(most // max(kv_heads, 1), 1)
    for entry in range(0, entries, step):
        for head in range(0, kv_heads, most):
            yield slice(entry, entry + step), slice(head, head + most)
