"""What a score makes of the products of a batch, and how gradients come back through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spattn.backends.torch.batch import Batch
from spattn.backends.torch.spans import spans_of
from spattn.backends.torch.tiles import add_in_order, take_keys, take_rows
from spattn.call.request import Request
from spattn.scores.derivative import ZERO, derivative
from spattn.scores.evaluation import Values, evaluated, place
from spattn.scores.nodes import Expression, Read, Variable, walk

S = Variable("s")


@dataclass(frozen=True)
class Scoring:
    """A score and where the rows and keys of a call stand, as int64.

    Attributes:
        steps: The score after each term.
        tensors: What it reads, in the dtype of results.
        of_rows: Of q, h, b: [batch, num_q_heads, q_len, 1].
        of_keys: Of k: [batch, num_kv_heads, kv_len, 1].
    """

    steps: tuple[Expression, ...]
    tensors: Mapping[str, Tensor]
    of_rows: tuple[Tensor, Tensor, Tensor]
    of_keys: Tensor

    def pairs(self, rows: list[Tensor], keys: Tensor, batch: Batch) -> Pairs:
        """The score of a batch, from a piece's views of `of_rows` and `of_keys`."""
        q, h, b = (take_rows(x, batch, torch.int64) for x in rows)
        k = take_keys(keys, batch, torch.int64).transpose(-1, -2)
        return Pairs(self.steps, {"q": q, "h": h, "b": b, "k": k}, self.tensors)


@dataclass(frozen=True)
class Pairs:
    """The score of a batch's pairs, [entries, kv heads, tiles, members * M, N]."""

    steps: tuple[Expression, ...]
    variables: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]

    def scored(self, s: Tensor) -> Tensor:
        """The new scores."""
        for step, values in self._chain(s):
            s = evaluated(step, values).expand_as(s)
        return s.clone()

    def derived(self, s: Tensor, d_s: Tensor, allowed: Tensor, into: Mapping[str, Tensor]) -> Tensor:
        """The gradient of s, from that of the new scores; those of tensors are added to what `into` has of them."""
        d_s = torch.where(allowed, d_s, 0)
        for step, values in reversed(list(self._chain(s))):
            for read in {part for part in walk(step) if isinstance(part, Read) and part.tensor in into}:
                share = d_s * evaluated(derivative(step, read), values)
                _add(into[read.tensor], place(read.index, into[read.tensor], values), torch.where(allowed, share, 0))
            factor = derivative(step, S)
            d_s = torch.zeros_like(d_s) if factor == ZERO else torch.where(allowed, d_s * evaluated(factor, values), 0)
        return d_s

    def _chain(self, s: Tensor) -> Iterator[tuple[Expression, Values]]:
        for step in self.steps:
            values = Values({**self.variables, "s": s}, self.tensors)
            yield step, values
            s = evaluated(step, values).expand_as(s)


def _add(into: Tensor, index: Tensor, values: Tensor) -> None:
    index = index.reshape((1,) * (values.dim() - index.dim()) + index.shape)
    values, flat = values.sum_to_size(index.shape).reshape(-1, 1), into.view(-1, 1)
    if into.is_cuda:
        add_in_order(flat, index.flatten(), values)
    else:
        flat.index_add_(0, index.flatten(), values)


def positions(request: Request) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """`Scoring.of_rows` and `Scoring.of_keys` of a call."""
    rows, keys, device = request.q.shape[:3], request.k.shape[:3], request.q.device
    q, b = (torch.zeros((rows[0], 1, rows[2], 1), dtype=torch.int64, device=device) for _ in range(2))
    k = torch.zeros((keys[0], 1, keys[2], 1), dtype=torch.int64, device=device)
    entries = torch.arange(rows[0], device=device).view(-1, 1, 1, 1)
    for span in spans_of(request):
        entry, packed = span.entry, request.positions.is_packed
        lies = slice(None) if entry is None or packed else slice(entry, entry + 1)
        q[lies, :, span.rows] = torch.arange(span.q_offset, span.q_offset + span.q_len, device=device).view(-1, 1)
        k[lies, :, span.keys] = torch.arange(*span.given, device=device).view(-1, 1)
        b[lies, :, span.rows] = entries if entry is None else entry
    h = torch.arange(rows[1], device=device).view(1, -1, 1, 1)
    of_q, of_h, of_b = (x.expand(*rows, 1) for x in (q, h, b))
    return (of_q, of_h, of_b), k.expand(*keys, 1)
