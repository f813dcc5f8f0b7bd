"""The tensors of a pattern at a call, and what is derived from them: lists, ends of documents.

Tensors are read when the call runs. What it derives it derives in its stream, or inside the graph that captures it, and
keeps no longer than it lasts: that a tensor was written to since cannot be seen from outside. Only a copy, made by the
user's word or for a backward pass, keeps what was derived from it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TypeVar, cast

import torch

from spattn.errors import ArgumentError

T = TypeVar("T")


class Prepared(Mapping[str, torch.Tensor]):
    """Tensors by name, and what has been derived from them, each thing once.

    Made by `Attention.prepare`, and given to as many calls as read the same tensors, as `prepared=`.

    Args:
        tensors: By name, on one device. Nothing may write to them while this is used.
        shared: Others, which are kept longer.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], shared: Prepared | None = None) -> None:
        self._own, self._shared = tensors, shared
        self._derived: dict[Hashable, object] = {}

    def copied(self) -> Prepared:
        """The same tensors as they are now, whatever is written to them later; those that are shared are copies."""
        if not self._own:
            return self
        return Prepared({name: one.detach().clone() for name, one in self._own.items()}, self._shared)

    def derived(self, key: Hashable, names: Iterable[str], make: Callable[[], T]) -> T:
        """What `make` answers, which reads the tensors `names` and nothing that is not in `key`."""
        if self._shared is not None and all(name in self._shared for name in names):
            return self._shared.derived(key, names, make)
        if key not in self._derived:
            self._derived[key] = make()
        return cast(T, self._derived[key])

    def __getitem__(self, name: str) -> torch.Tensor:
        if self._shared is not None and name in self._shared:
            return self._shared[name]
        return self._own[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._shared or ()
        yield from self._own

    def __len__(self) -> int:
        return len(self._own) + len(self._shared or ())


class Kept(Prepared):
    """What a user has prepared: copies of tensors, for calls that all are captured in graphs, or none is."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__({name: one.detach().clone() for name, one in tensors.items()})
        self._in_graph = self._is_captured()

    def derived(self, key: Hashable, names: Iterable[str], make: Callable[[], T]) -> T:
        """As `Prepared.derived`; a graph may read what was derived before it, and keeps what it derives to itself."""
        captured = self._is_captured()
        if self._in_graph and not captured:
            message = "this was prepared while a graph was captured, and is filled when that graph runs"
            raise ArgumentError("E060", message, hint="call prepare again, outside of the graph")
        if captured and not self._in_graph and key not in self._derived:
            return make()
        return super().derived(key, names, make)

    def copied(self) -> Prepared:
        """Itself, a copy."""
        return self

    def _is_captured(self) -> bool:
        return is_captured(*self.values())


def is_captured(*tensors: torch.Tensor) -> bool:
    """Is what is computed of these tensors now captured in a graph, and computed when that runs?"""
    return any(one.is_cuda for one in tensors) and torch.cuda.is_current_stream_capturing()


NONE = Prepared({})
"""For patterns that read no tensors."""
