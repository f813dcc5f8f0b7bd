"""Which batches serve which heads of which batch entries, and a small memory of batches of patterns without tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch

from spattn.backends.torch.batch import Batch
from spattn.backends.torch.parts import Part, parts
from spattn.backends.torch.schedule import batches
from spattn.backends.torch.spans import Span
from spattn.call.request import Request
from spattn.expressions.evaluation import IntArray
from spattn.expressions.tensors import Tensors
from spattn.layout.call import Call, calls, spread
from spattn.layout.ir import Layout

PAIRS = {"cpu": 600_000}
"""Pairs of a batch, about: enough for products of many tiles, whose scores still fit a cache; elsewhere 1 << 22."""

KEPT_BYTES = 256 << 20
KEPT_CALLS = 64


@dataclass(frozen=True)
class Run:
    """The batches of one call, and the parts of a group of heads that share them.

    Attributes:
        rows, keys: Which of the tensors the call's are.
    """

    layout: Layout
    call: Call
    parts: tuple[Part, ...]
    rows: slice
    keys: slice
    device: torch.device
    remembered: bool

    def batches(self) -> Iterator[Batch]:
        """The batches, in an order that is always the same."""
        made = batches(self.layout, self.call, self.device, PAIRS.get(self.device.type, 1 << 22))
        return _MEMORY.through(self, made) if self.remembered else made


def runs(layout: Layout, group: IntArray, request: Request, span: Span, tensors: Tensors) -> list[Run]:
    """The runs of a group of heads, of all batch entries or of one.

    Args:
        layout: The group's.
        group: Its heads, ascending: `b * num_q_heads + h`.
        request: The call.
        span: Where the rows and keys of the entries stand, and where they lie.
        tensors: The pattern's run-time tensors.
    """
    heads, alone = request.num_q_heads, span.entry is not None
    over = spread(layout.condition, tensors)
    served: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for entry, head in (divmod(one, heads) for one in group.tolist()):
        if span.entry in (None, entry):
            lies = 0 if request.positions.is_packed else entry
            served.setdefault((entry if over.batch or alone else 0, head if over.heads else 0), []).append((lies, head))
    sizes: dict[str, Any] = {"batch_size": request.batch_size, "num_heads": heads, "only": span.entry}
    made = calls(layout, span.q_len, span.kv_len, tensors, q_offset=span.q_offset, given=span.given, **sizes)
    size, device = request.group_size, request.q.device
    return [
        Run(layout, call, parts(served[place], size), span.rows, span.keys, device, not tensors.names)
        for call in made
        if (place := (call.batch, call.head)) in served
    ]


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
        sizes = (call.rows, call.columns, call.kv_len, call.batch, call.head, call.batch_size, call.num_heads)
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
