"""Documents of one call as NumPy arrays: which index is of which document, and where these begin and end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spattn.errors import ArgumentError
from spattn.expressions.evaluation import IntArray
from spattn.expressions.nodes import DocumentBound, Documents, Side

MISSING = {"queries": -1, "keys": -2}
"""Ids of an index outside of all segments: those of queries equal none of the keys'."""


@dataclass(frozen=True)
class DocumentArrays:
    """The documents of a call.

    Attributes:
        documents: How they are written.
        arrays: The tensors of its sides, by name.
        lengths: How many indices each side has.
        batch_size: Of the call.
    """

    documents: Documents
    arrays: Mapping[str, IntArray]
    lengths: Mapping[str, int]
    batch_size: int

    @property
    def batched(self) -> bool:
        """Has each batch entry documents of its own?"""
        return any(self.arrays[name].ndim > 1 for name in self.documents.tensors)

    def ids(self, side: str) -> IntArray:
        """`[length]` or `[batch, length]`: equal on both sides where the document is one.

        Raises:
            ArgumentError: E060, the tensor is not what is read.
        """
        written, length = self.documents.side(side), self.lengths[side]
        given = self.arrays[written.tensor]
        if written.cumulative:
            return np.where((found := segment_of(written, given, length)) < 0, MISSING[side], found)
        if given.shape not in ((length,), (self.batch_size, length)):
            raise _misfit(written, given, f"[{length}] or [{self.batch_size}, {length}]")
        # an id beside cumulative lengths is the number of a segment
        return np.where(given < 0, MISSING[side], given) if self.documents.cumulative else given

    def bounds(self, bound: DocumentBound) -> IntArray:
        """The array that `bound` stands for."""
        seen, of = np.atleast_2d(self.ids(bound.seen_from)), np.atleast_2d(self.ids(bound.of))
        rows = max(len(seen), len(of)) if len(seen) and len(of) else 0
        found = np.zeros((rows, seen.shape[1]), np.int64)
        for i in range(rows):
            one, other = seen[i % len(seen)], of[i % len(of)]
            there = one >= 0 if self.documents.cumulative else np.ones(len(one), np.bool_)
            found[i] = np.where(there, self._ends(one, other, bound.end), 0)
        return found if self.batched else found[0]

    def _ends(self, seen: IntArray, of: IntArray, end: str) -> IntArray:
        if end in ("start", "stop"):
            return _occurrences(seen, of)[end == "stop"]
        if not self.documents.two_sided:
            return _run(seen)[end == "run_stop"]
        start, stop, count = _occurrences(seen, of)
        return np.where(stop - start == count, (start, stop)[end == "run_stop"], 0)


def segment_of(side: Side, cumulative: IntArray, length: int) -> IntArray:
    """`[length]`: the segment of each index, -1 outside of all.

    Raises:
        ArgumentError: E060, these are no cumulative lengths.
    """
    if cumulative.ndim != 1 or not len(cumulative):
        raise _misfit(side, cumulative, "[documents + 1]")
    if (np.diff(cumulative) < 0).any():
        message = f"the cumulative lengths {side.tensor} descend"
        raise ArgumentError("E060", message, hint="document i is the positions cu[i] .. cu[i+1]-1")
    found = np.searchsorted(cumulative, np.arange(length), side="right") - 1
    return np.where(found == len(cumulative) - 1, -1, found)


def _misfit(side: Side, given: IntArray, wanted: str) -> ArgumentError:
    hint = "cumulative lengths are written segments(..)" if not side.cumulative and given.ndim == 1 else ""
    return ArgumentError("E060", f"{side.tensor} has shape {list(given.shape)}; {side} needs {wanted}", hint=hint)


def _occurrences(seen: IntArray, of: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Of each id in `seen` its first index in `of`, the one past its last, and how many there are; else zeros."""
    order = np.argsort(of, kind="stable")
    ordered = of[order]
    begin, end = (np.searchsorted(ordered, seen, side=side) for side in ("left", "right"))
    if not len(of):
        return np.zeros_like(seen), np.zeros_like(seen), np.zeros_like(seen)
    there = begin < end
    first, last = order[np.minimum(begin, len(of) - 1)], order[np.maximum(end - 1, 0)]
    return np.where(there, first, 0), np.where(there, last + 1, 0), end - begin


def _run(ids: IntArray) -> tuple[IntArray, IntArray]:
    """Of each index the first of the run of equal, adjacent ids that holds it, and the one past its last."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(ids)) + 1, [len(ids)]]).astype(np.int64)
    return np.repeat(edges[:-1], np.diff(edges)), np.repeat(edges[1:], np.diff(edges))
