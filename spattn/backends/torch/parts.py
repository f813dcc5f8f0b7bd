"""Heads of batch entries as products of progressions: what a schedule serves are views, whichever heads they are.

With 8 query heads for 2 key heads, heads 1, 2 and 5 are members 1 and 2 of the first group and member 1 of the second:
two parts, and neither computes a head that is not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Batch entries, key heads, and which members of each key head's group: all combinations.

    Attributes:
        entries, kv_heads, members: Arithmetic progressions.
    """

    entries: slice
    kv_heads: slice
    members: slice

    def of_rows(self, x: Tensor, kv_heads: int) -> Tensor:
        """[batch, heads, ..] -> the part's view [entries, kv heads, members, ..]."""
        group_size = x.shape[1] // kv_heads
        grouped = x.view(x.shape[0], kv_heads, group_size, *x.shape[2:])
        return grouped[self.entries, self.kv_heads, self.members]

    def of_keys(self, x: Tensor) -> Tensor:
        """[batch, kv heads, ..] -> the part's view [entries, kv heads, ..]."""
        return x[self.entries, self.kv_heads]


def parts(heads: list[tuple[int, int]], group_size: int) -> tuple[Part, ...]:
    """Disjoint parts that make up query heads, each (batch entry, head), ascending."""
    places = [(entry, *divmod(head, group_size)) for entry, head in heads]
    return tuple(Part(*product) for product in _products(places))


def _products(places: Sequence[tuple[int, ...]]) -> Iterator[tuple[slice, ...]]:
    """Ascending places as products: first coordinates with the same rest stand together."""
    if places and not places[0]:
        yield ()
        return
    rests: dict[int, list[tuple[int, ...]]] = {}
    for first, *rest in places:
        rests.setdefault(first, []).append(tuple(rest))
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for first, found in rests.items():
        alike.setdefault(tuple(found), []).append(first)
    for same, firsts in alike.items():
        yield from ((run, *product) for product in _products(same) for run in _progressions(firsts))


def _progressions(values: list[int]) -> Iterator[slice]:
    """Ascending values as arithmetic progressions, each as long as it gets."""
    first = 0
    while first < len(values):
        step = values[first + 1] - values[first] if first + 1 < len(values) else 1
        last = first
        while last + 1 < len(values) and values[last + 1] - values[last] == step:
            last += 1
        yield slice(values[first], values[last] + 1, step)
        first = last + 1
