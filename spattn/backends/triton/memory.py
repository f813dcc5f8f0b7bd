"""What was made from tensors, kept while the same tensors come again unchanged.

A tensor is the same while it is the same object at the same version: its address may be another tensor's tomorrow.
Training and serving hand the same documents or block table to each layer, and sorting them once is enough. Nothing
here keeps a user's tensor alive: what was made of it goes with it.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class _Entry:
    value: object
    sources: tuple[tuple[weakref.ref[torch.Tensor], int], ...]

    def fresh(self, sources: Sequence[torch.Tensor]) -> bool:
        """Was it made from just these tensors, and are they as they were?"""
        known = zip(self.sources, sources, strict=True)
        return all(reference() is tensor and version == tensor._version for (reference, version), tensor in known)


class Memory:
    """Values by key and source tensors, the `capacity` last used."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, sources: Sequence[torch.Tensor], make: Callable[[], T]) -> T:
        """The value made before from the same sources, or a new one."""
        if any(tensor.is_inference() for tensor in sources):  # these do not count their versions
            return make()
        key = (key, *map(id, sources))
        entry = self._entries.get(key)
        if entry is not None and entry.fresh(sources):
            self._entries.move_to_end(key)
            return cast(T, entry.value)
        value = make()
        if not _holds(value, sources):
            self._keep(key, value, sources)
        return value

    def _keep(self, key: Hashable, value: object, sources: Sequence[torch.Tensor]) -> None:
        def forget(_: object) -> None:
            self._entries.pop(key, None)

        self._entries[key] = _Entry(value, tuple((weakref.ref(t, forget), t._version) for t in sources))
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)


def _holds(value: object, sources: Sequence[torch.Tensor]) -> bool:
    """Is one of the sources, or a view of it, in the value? To keep that would keep the source."""
    match value:
        case torch.Tensor():
            return shares_memory(value, sources)
        case tuple():
            return any(_holds(part, sources) for part in value)
        case dict():
            return any(_holds(part, sources) for part in value.values())
    return False


def shares_memory(tensor: torch.Tensor, others: Sequence[torch.Tensor]) -> bool:
    """Is it one of the others, or a view of one?"""
    own = tensor.untyped_storage().data_ptr()
    return any(own == other.untyped_storage().data_ptr() for other in others)
