"""`Workload`: a pattern said twice, in the language and as a mask function, with the shape that it is timed at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from spattn.bench.lengths import short
from spattn.pattern import Pattern

Mask = Callable[[Any, Any, Any, Any], Any]
"""(b, h, q, k) -> is the pair allowed? On numbers, or on index tensors that broadcast."""

EVERY_KEY = 1 << 40
"""The window of dense causal attention."""


def nothing(length: int) -> dict[str, Any]:
    """No bindings and no tensors."""
    return {}


@dataclass(frozen=True)
class Setting:
    """What a mask function closes over.

    Attributes:
        length: Queries, and keys.
        heads: Query heads.
        device: Where the mask is evaluated.
        tensors: The pattern's, on that device.
    """

    length: int
    heads: int
    device: torch.device
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """Attention of `length` queries on as many keys.

    Attributes:
        name: The base's name, and `@LENGTH` where the length is another one.
        text: The pattern, in the language.
        mask: The same as a mask function.
        length: Tokens.
        head_dim: Of q, k and v.
        q_heads: Query heads.
        kv_heads: Key heads.
        batch: Batch entries.
        bindings: Names of the pattern that depend on the length.
        tensors: Its run-time tensors for a length, on the CPU.
        by_head: Do heads differ?
        causal: Is no later key allowed? The dense reference is causal then.
        window: Keys a row, where the pattern is a causal window and nothing else.
    """

    name: str
    text: str
    mask: Callable[[Setting], Mask]
    length: int
    head_dim: int = 64
    q_heads: int = 16
    kv_heads: int = 16
    batch: int = 1
    bindings: Callable[[int], dict[str, int]] = nothing
    tensors: Callable[[int], dict[str, torch.Tensor]] = nothing
    by_head: bool = False
    causal: bool = False
    window: int | None = None

    def at(self, length: int) -> Workload:
        """The same at another length."""
        if length == self.length:
            return self
        return replace(self, name=f"{self.base}@{short(length)}", length=length)

    @property
    def base(self) -> str:
        """The name without a length."""
        return self.name.partition("@")[0]

    @property
    def pattern(self) -> Pattern:
        """The pattern, names bound.

        Raises:
            ArgumentError: E060, it has no form at this length.
        """
        return Pattern.of(self.text, **self.bindings(self.length))

    @property
    def mask_heads(self) -> range:
        """The heads whose masks differ: all, or the first for all."""
        return range(self.q_heads if self.by_head else 1)

    @property
    def grouped(self) -> bool:
        """Do query heads share key heads?"""
        return self.q_heads != self.kv_heads

    @property
    def dense(self) -> bool:
        """Is it plain causal attention?"""
        return self.window is not None and self.window >= self.length
