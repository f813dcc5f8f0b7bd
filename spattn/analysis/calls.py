"""The call that an explanation speaks of, and the shorter one whose tiles are counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

from spattn.analysis.samples import sample_tensors
from spattn.call.shape import Shape
from spattn.expressions.nodes import Bool
from spattn.expressions.tensors import Tensors
from spattn.oracle import is_spread

MAX_TILED = 1 << 15  # tokens at which tiles are counted at most: 262144 visits of 64 x 64 tiles
MAX_WHOLE = 1 << 20  # keys of the whole then, where few of them are given
MAX_ROWS = 1 << 21  # queries whose keys are counted one by one


@dataclass(frozen=True)
class Call:
    """Sizes, and arrays for the pattern's free names."""

    shape: Shape
    tensors: Mapping[str, Any]

    @property
    def q_len(self) -> int:
        """Queries, in tokens."""
        return self.shape.q_len

    @property
    def kv_len(self) -> int:
        """Keys of the whole, in tokens."""
        return self.shape.kv_len

    @property
    def num_keys(self) -> int:
        """Keys that are given, in tokens."""
        return self.shape.num_keys

    @property
    def given(self) -> tuple[int, int]:
        """Their positions, half-open."""
        return self.shape.given

    @property
    def q_offset(self) -> int:
        """Position of the first query among the keys."""
        return self.shape.q_offset

    @property
    def num_heads(self) -> int:
        """Query heads."""
        return self.shape.num_q_heads

    @property
    def batch_size(self) -> int:
        """Batch entries."""
        return self.shape.batch_size

    @property
    def entries(self) -> int:
        """(batch entry, head) pairs."""
        return self.num_heads * self.batch_size

    def is_spread(self, condition: Bool) -> bool:
        """May heads or batch entries differ?"""
        return is_spread(condition, Tensors(self.tensors, self.kv_len, self.batch_size, self.num_heads, self.q_len))

    def with_samples(self, condition: Bool, names: Mapping[str, str]) -> Call:
        """The call with example tensors; none where it is too long for its pairs to be counted with them."""
        if self.q_len > MAX_ROWS:
            return self
        return replace(self, tensors=sample_tensors(condition, names, self.kv_len, q_len=self.q_len))

    def shortened(self, condition: Bool, names: Mapping[str, str]) -> Call:
        """The call with example tensors, short enough to count its tiles; shorter where each head counts."""
        short = self._capped(MAX_TILED).with_samples(condition, names)
        if not short.is_spread(condition):
            return short
        return self._capped(MAX_TILED // isqrt(self.entries)).with_samples(condition, names)

    def _capped(self, most: int) -> Call:
        """No longer than that; the last query stays at the last given key, or about as far before or behind it."""
        (first, stop), kv_len = self.given, self.kv_len
        q_len, num_keys = min(self.q_len, most), min(stop - first, most)
        beyond = self.q_offset + self.q_len - stop
        if num_keys < stop - first:
            beyond = beyond * num_keys // (stop - first)
        around = kv_len - (stop - first)  # keys that are not given, as many of them before the others as after in part
        left = min(around, max(MAX_WHOLE - num_keys, 0))
        first = first * left // max(around, 1)
        shape = replace(
            self.shape,
            q_len=q_len,
            kv_len=left + num_keys,
            q_offset=first + num_keys - q_len + beyond,
            k_offset=first,
            num_keys=num_keys,
        )
        return replace(self, shape=shape)
