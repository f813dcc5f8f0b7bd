"""Documents as the kernels read them: ids of each side's indices, and where an index's document ends on a side.

Made on the device without waiting for it; what a GPU holds is not checked, but no array points outside of its side.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from spattn.codegen.parameters import DocumentBounds
from spattn.errors import ArgumentError
from spattn.expressions.documents import MISSING
from spattn.expressions.nodes import Documents

ENDS = ("start", "stop", "run_start", "run_stop")


SORTED = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def document_tensors(
    documents: Documents, tensors: Mapping[str, torch.Tensor], q_len: int, kv_len: int
) -> dict[DocumentBounds, torch.Tensor]:
    """All ends of documents that kernels may read, by role, each int32 `[n]` or `[batch, n]`.

    Args:
        documents: How they are written.
        tensors: The user's: ids `[n]` or `[batch, n]`, cumulative lengths `[documents + 1]`.
        q_len: Number of queries.
        kv_len: Number of keys.

    Raises:
        ArgumentError: E060, cumulative lengths on a CPU descend.
    """
    lengths = {"queries": q_len if documents.two_sided else kv_len, "keys": kv_len}
    made = {side: document_ids(documents, side, tensors, length) for side, length in lengths.items()}
    ids = {side: x if x.dtype in SORTED else x.to(torch.int64) for side, x in made.items()}
    found: dict[DocumentBounds, torch.Tensor] = {}
    if not documents.two_sided:
        ends = segments(ids["keys"])
        placed = ids["keys"] >= 0 if documents.cumulative else None
        for end in ENDS:
            kept = ends[end] if placed is None else torch.where(placed, ends[end], 0)
            found[DocumentBounds(documents, "keys", "keys", end)] = kept
        return found
    for of in lengths:
        for seen_from in lengths:
            each = zip(ENDS, _occurrences(ids[seen_from], ids[of], placed=documents.cumulative), strict=True)
            found |= {DocumentBounds(documents, of, seen_from, end): x for end, x in each}
    return found


def document_ids(documents: Documents, side: str, tensors: Mapping[str, torch.Tensor], length: int) -> torch.Tensor:
    """`[length]` or `[batch, length]`: equal on both sides where the document is one; the user's tensor if it can be.

    Raises:
        ArgumentError: E060, cumulative lengths on a CPU descend.
    """
    written = documents.side(side)
    given = tensors[written.tensor]
    if written.cumulative:
        found = _segment_of(written.tensor, given, length)
        return torch.where(found < 0, MISSING[side], found)
    alike = len({tensors[name].dtype for name in documents.tensors}) == 1
    plain = given.to(torch.int8) if given.dtype == torch.bool else given
    if alike and not documents.cumulative:
        return plain
    plain = plain.to(torch.int64)  # signed and unsigned ids would meet in one of their types
    # an id beside cumulative lengths is the number of a segment
    return torch.where(plain < 0, MISSING[side], plain) if documents.cumulative else plain


def _segment_of(name: str, cumulative: torch.Tensor, length: int) -> torch.Tensor:
    """`[length]`: the segment of each index, -1 outside of all."""
    if cumulative.device.type == "cpu" and bool((cumulative[1:] < cumulative[:-1]).any()):
        message = f"the cumulative lengths {name} descend"
        raise ArgumentError("E060", message, hint="document i is the positions cu[i] .. cu[i+1]-1")
    position = torch.arange(length, device=cumulative.device)
    found = torch.searchsorted(cumulative.to(position.dtype).contiguous(), position, right=True) - 1
    return torch.where(found == len(cumulative) - 1, -1, found)


def _occurrences(seen: torch.Tensor, of: torch.Tensor, *, placed: bool) -> tuple[torch.Tensor, ...]:
    """int32: of each id in `seen` its first index in `of`, the one past its last, and these again if it is one run.

    Args:
        seen: [n] or [batch, n].
        of: [m] or [batch, m].
        placed: Is an id below 0 no document?
    """
    seen, of = _alike(seen.to(torch.int64), of.to(torch.int64))
    ordered, order = torch.sort(of, dim=-1, stable=True)
    begin = torch.searchsorted(ordered.contiguous(), seen.contiguous())
    end = torch.searchsorted(ordered.contiguous(), seen.contiguous(), right=True)
    there = (begin < end) & (seen >= 0) if placed else begin < end
    if not of.shape[-1]:
        order = seen.new_zeros((*of.shape[:-1], 1))
    first = order.gather(-1, begin.clamp(max=order.shape[-1] - 1))
    stop = order.gather(-1, (end - 1).clamp(min=0)) + 1
    in_run = there & (stop - first == end - begin)
    made = (torch.where(there, x, 0) for x in (first, stop)), (torch.where(in_run, x, 0) for x in (first, stop))
    return tuple(x.to(torch.int32) for pair in made for x in pair)


def _alike(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """With batch entries both, if one of them has."""
    batch = max(one.shape[:-1], other.shape[:-1])  # where both have entries, they have as many
    return one.expand(*batch, one.shape[-1]), other.expand(*batch, other.shape[-1])


def segments(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """For each position: first and one past the last occurrence of its id, and the adjacent run that holds it."""
    position = torch.arange(ids.shape[-1], device=ids.device, dtype=torch.int32).expand(ids.shape)
    run_start, run_stop = _runs(ids, position)
    ordered, order = torch.sort(ids, dim=-1, stable=True)
    group_start, group_stop = _runs(ordered, position)
    order = order.to(torch.int32)
    first = order.gather(-1, group_start.long())
    last = order.gather(-1, (group_stop - 1).long())
    start = torch.empty_like(order).scatter_(-1, order.long(), first)
    stop = torch.empty_like(order).scatter_(-1, order.long(), last + 1)
    return {"start": start, "stop": stop, "run_start": run_start, "run_stop": run_stop}


def _runs(values: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and stop of the run of equal neighbours around each position."""
    changes = torch.ones_like(values, dtype=torch.bool)
    changes[..., 1:] = values[..., 1:] != values[..., :-1]
    start = torch.cummax(torch.where(changes, position, 0), -1).values
    ends = torch.ones_like(changes)
    ends[..., :-1] = changes[..., 1:]
    stops = torch.where(ends, position + 1, values.shape[-1])
    stop = torch.flip(torch.cummin(torch.flip(stops, [-1]), -1).values, [-1])
    return start.to(torch.int32), stop.to(torch.int32)
