"""`frozen`: a dataclass that cannot change and remembers its hash.

Plans are deep trees and stand in the keys of caches that each call asks: hashed anew, they would cost more than a
launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[T]) -> type[T]:
    """`@dataclass(frozen=True)` with a hash that is computed once."""
    made = dataclass(frozen=True)(cls)
    computed = made.__hash__

    def __hash__(self: Any) -> int:
        known: int | None = self.__dict__.get("_hash")
        if known is None:
            known = computed(self)
            self.__dict__["_hash"] = known
        return known

    def __getstate__(self: Any) -> dict[str, Any]:
        # strings hash otherwise in another process
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    made.__hash__ = __hash__  # type: ignore[method-assign]
    made.__getstate__ = __getstate__  # type: ignore[method-assign]
    return made
