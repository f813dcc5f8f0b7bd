"""Which batches serve which batch entries and heads, and a small memory of them for patterns that read no tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

import torch

from spattn.backends.torch.schedule import Batch, batches
from spattn.expressions.tensors import Tensors
from spattn.layout.ir import Layout
from spattn.layout.launch import Call, Spread, calls, spread

KEPT_BYTES = 256 << 20
KEPT_CALLS = 64


@dataclass(frozen=True)
class Run:
    """The batches of one call; `batch`, `head` are None where the call serves all of them."""

    layout: Layout
    call: Call
    device: torch.device
    over: Spread
    remembered: bool

    @property
    def batch(self) -> int | None:
        """The batch entry."""
        return self.call.batch if self.over.batch else None

    @property
    def head(self) -> int | None:
        """The query head."""
        return self.call.head if self.over.heads else None

    def batches(self) -> Iterator[Batch]:
        """The batches, in an order that is always the same."""
        made = batches(self.layout, self.call, self.device, 1 << 18 if self.device.type == "cpu" else 1 << 22)
        return _MEMORY.through(self, made) if self.remembered else made


def runs(
    layout: Layout,
    q_len: int,
    q_offset: int,
    tensors: Tensors,
    kv_len: int,
    sizes: tuple[int, int],
    device: torch.device,
) -> list[Run]:
    """The runs of a launch with `sizes` = (batch entries, query heads)."""
    over = spread(layout.condition, tensors)
    made = calls(layout, q_len, kv_len, tensors, q_offset=q_offset, batch_size=sizes[0], num_heads=sizes[1])
    return [Run(layout, call, device, over, remembered=not tensors.names) for call in made]


class _Memory:
    """Batches of the latest calls, as far as they are small.

    Entries hold their layout, so that its identity is not given to another one.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[object, tuple[Layout, list[Batch], int]] = OrderedDict()
        self._lock = Lock()

    def through(self, run: Run, made: Iterator[Batch]) -> Iterator[Batch]:
        """The run's batches: those that are kept, else those of `made`, which are kept then."""
        call = run.call
        sizes = (call.rows, call.columns, call.batch, call.head, call.batch_size, call.num_heads)
        key = (id(run.layout), sizes, run.device)
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
        return iter(entry[1]) if entry is not None else self._kept(key, run.layout, made)

    def _kept(self, key: object, layout: Layout, made: Iterator[Batch]) -> Iterator[Batch]:
        found: list[Batch] = []
        total = 0
        for batch in made:
            total += batch.nbytes
            if total <= KEPT_BYTES // 2:
                found.append(batch)
            yield batch
        if total <= KEPT_BYTES // 2:
            self._keep(key, (layout, found, total))

    def _keep(self, key: object, entry: tuple[Layout, list[Batch], int]) -> None:
        with self._lock:
            self._entries[key] = entry
            while len(self._entries) > KEPT_CALLS or sum(e[2] for e in self._entries.values()) > KEPT_BYTES:
                self._entries.popitem(last=False)


_MEMORY = _Memory()
