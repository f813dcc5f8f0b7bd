"""Run-time tensors as the kernels read them, made on the device without waiting for it.

Sizes come from shapes alone: nothing here reads a value back to the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from spattn.backends.triton.documents import document_ids, document_tensors
from spattn.backends.triton.memory import Memory
from spattn.codegen.parameters import (
    BlockLists,
    DocumentBounds,
    DocumentIds,
    GivenTokens,
    Membership,
    Role,
    TokenList,
    Values,
    dimensions,
)
from spattn.errors import ArgumentError
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import Documents, GivenTable, RandomTable, Tokens
from spattn.expressions.tensors import NOTHING
from spattn.expressions.width import LONGEST
from spattn.philox import random_blocks

NOWHERE = LONGEST
MEMORY = Memory(capacity=256)


def source_names(role: Role) -> tuple[str, ...]:
    """The user's tensors that a role is made of."""
    match role:
        case Values(name, _):
            return (name,)
        case DocumentIds(documents, _) | DocumentBounds(documents, _, _, _):
            return documents.tensors
        case TokenList(tokens) | Membership(tokens, _):
            return tokens.tensors
        case GivenTokens(name):
            return (name,)
        case BlockLists(GivenTable(tensor), _, _):
            return (tensor,)
    return ()


class Prepared:
    """The tensors of one call by role; what was made is kept for later calls (`Memory`).

    Args:
        tensors: The user's tensors.
        kv_len, num_heads: Of the call.
        queries: Their positions, half-open.
        device: Where they must be.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        kv_len: int,
        num_heads: int,
        queries: tuple[int, int],
        device: torch.device,
    ) -> None:
        self._tensors = tensors
        self._kv_len, self._heads, self._queries, self._device = kv_len, num_heads, queries, device

    def of(self, role: Role) -> tuple[torch.Tensor, tuple[int, ...]]:
        """The tensor; strides of batch and head, size and stride of each dimension, and of lists the first row."""
        sources = [self._tensors[name] for name in source_names(role)]
        key = (role, self._kv_len, self._heads, self._queries, self._device)
        tensor, first_row = MEMORY.get(key, sources, lambda: self._make(role))
        rank = dimensions(role)
        extra = tensor.dim() - rank
        strides = [0 if tensor.shape[i] == 1 else tensor.stride(i) for i in range(extra)]
        leading = strides + [0] * (2 - extra)
        numbers = leading
        for i in range(extra, tensor.dim()):
            numbers += [tensor.shape[i], tensor.stride(i)]
        return tensor, (*numbers, first_row) if isinstance(role, BlockLists) else tuple(numbers)

    def _make(self, role: Role) -> tuple[torch.Tensor, int]:
        match role:
            case Values(name, rank):
                return self._values(name, rank), 0
            case DocumentIds(documents, side):
                length = self._q_len if documents.two_sided and side == "queries" else self._kv_len
                return document_ids(documents, side, self._tensors, length), 0
            case DocumentBounds(documents, _, _, _):
                return self._ends(documents)[role], 0
            case TokenList(tokens):
                return self._token_list(tokens), 0
            case Membership(tokens, length):
                return self._membership(tokens, int(evaluate(length, {"kv_len": self._kv_len}, NOTHING))), 0
            case GivenTokens(name):
                given = self._tensors[name].to(torch.int32)
                return given if given.dim() else given[None], 0
            case BlockLists(table, size, transposed):
                return self._block_lists(table, size, transposed)

    def _values(self, name: str, rank: int) -> torch.Tensor:
        tensor = self._tensors[name]
        if tensor.dtype == torch.bool:
            tensor = tensor.to(torch.int8)
        if 0 in tensor.shape[max(tensor.dim() - rank, 0) :]:
            raise ArgumentError("E060", f"{name} is empty, shape {list(tensor.shape)}")
        if tensor.dim() < rank:
            tensor = tensor.reshape([1] * (rank - tensor.dim()) + list(tensor.shape))
        if tensor.dim() > rank + 2:
            raise ArgumentError(
                "E060", f"{name} has {tensor.dim()} dimensions; it is read with {rank}, so at most {rank + 2}"
            )
        return tensor

    def _ends(self, documents: Documents) -> dict[DocumentBounds, torch.Tensor]:
        """All ends of documents, made at once."""
        key = (documents, self._q_len, self._kv_len, self._device)
        sources = [self._tensors[name] for name in documents.tensors]
        return MEMORY.get(key, sources, lambda: document_tensors(documents, self._tensors, self._q_len, self._kv_len))

    @property
    def _q_len(self) -> int:
        return self._queries[1] - self._queries[0]

    def _token_list(self, tokens: Tokens) -> torch.Tensor:
        """Ascending; a token that is repeated or outside stands at the end as NOWHERE."""
        if not tokens.tensors:
            known = sorted({v if v >= 0 else v + self._kv_len for v in tokens.values})
            inside = [v for v in known if 0 <= v < self._kv_len] or [NOWHERE]
            return torch.tensor(inside, dtype=torch.int32, device=self._device)
        found = torch.sort(self._gathered(tokens, self._kv_len), -1).values
        repeated = torch.zeros_like(found, dtype=torch.bool)
        repeated[..., 1:] = found[..., 1:] == found[..., :-1]
        return torch.sort(found.masked_fill(repeated, NOWHERE), -1).values.to(torch.int32)

    def _gathered(self, tokens: Tokens, length: int) -> torch.Tensor:
        """All tokens side by side, `[n]` or `[batch, n]`, those outside of `length` positions as NOWHERE."""
        known = torch.tensor(tokens.values, dtype=torch.int64, device=self._device)
        parts = [
            known,
            *(
                self._tensors[name].reshape(self._tensors[name].shape or (1,)).to(torch.int64)
                for name in tokens.tensors
            ),
        ]
        batch = max((part.shape[0] for part in parts if part.dim() > 1), default=0)
        if batch:
            parts = [part.expand(batch, part.shape[-1]) for part in parts]
        found = torch.cat(parts, -1)
        found = torch.where(found < 0, found + length, found)
        return found.masked_fill((found < 0) | (found >= length), NOWHERE)

    def _membership(self, tokens: Tokens, length: int) -> torch.Tensor:
        found = self._gathered(tokens, length)
        marks = torch.zeros((*found.shape[:-1], length + 1), dtype=torch.int8, device=self._device)
        return marks.scatter_(-1, found.clamp(max=length), 1)[..., :length].contiguous()

    def _block_lists(self, table: RandomTable | GivenTable, size: int, transposed: bool) -> tuple[torch.Tensor, int]:
        keys, queries = self._blocks((0, self._kv_len), size), self._blocks(self._queries, size)
        (first, last), columns = (keys, queries) if transposed else (queries, keys)
        match table:
            case RandomTable():
                return (
                    self._inverse_lists(table, size) if transposed else self._random_lists(table, first, last)
                ), first
            case GivenTable(name):
                marks = self._tensors[name].bool()
                return listed(marks.transpose(-1, -2) if transposed else marks, (first, last), columns), first

    def _blocks(self, positions: tuple[int, int], size: int) -> tuple[int, int]:
        """The blocks in which positions lie, half-open, one at least."""
        first = positions[0] // size
        return first, max(-(-positions[1] // size), first + 1)

    def _drawn(self, table: RandomTable, first: int, last: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """[heads, query blocks, count]: key blocks drawn for the query blocks from first to before last, or -1."""
        blocks = int(evaluate(table.key_blocks, {"kv_len": self._kv_len}, NOTHING))
        heads, rows = np.arange(self._heads), np.arange(first, last)
        return random_blocks(table.count, table.seed, table.past, blocks, heads, rows)

    def _random_lists(self, table: RandomTable, first: int, last: int) -> torch.Tensor:
        drawn = self._drawn(table, first, last)
        drawn = np.sort(np.where(drawn < 0, NOWHERE, drawn), -1)
        count = (drawn < NOWHERE).sum(-1, keepdims=True)
        lists = np.concatenate([count, np.where(drawn == NOWHERE, -1, drawn)], -1).astype(np.int32)
        return torch.from_numpy(lists).to(self._device)[None]

    def _inverse_lists(self, table: RandomTable, size: int) -> torch.Tensor:
        """Of each key block the query blocks that drew it."""
        _, key_blocks = self._blocks((0, self._kv_len), size)
        first, last = self._blocks(self._queries, size)
        lists = inverse(self._drawn(table, first, last), key_blocks, first)
        return torch.from_numpy(lists).to(self._device)[None]


def inverse(drawn: np.ndarray[Any, np.dtype[np.int64]], count: int, first: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """int32 [heads, count, 1 + width]: of each value how many rows hold it, these rows ascending, then -1.

    Args:
        drawn: [heads, rows, n], values below `count`, or negative for none.
        count: Of values.
        first: The number of the first row.
    """
    head, row, _ = np.nonzero(drawn >= 0)
    value = head * count + drawn[drawn >= 0]
    order = np.argsort(value, kind="stable")
    value, row = value[order], row[order]
    number = np.bincount(value, minlength=len(drawn) * count)
    place = np.arange(len(value)) - np.repeat(np.cumsum(number) - number, number)
    lists = np.full((len(drawn) * count, 1 + int(number.max(initial=0))), -1, np.int32)
    lists[:, 0] = number
    lists[value, 1 + place] = row + first
    return lists.reshape(len(drawn), count, -1)


def listed(marks: torch.Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
    """int32 [.., rows, 1 + columns of the table]: how many columns a row marks, these ascending, then -1.

    Args:
        marks: bool [.., rows, columns]; rows outside it mark none.
        rows: Which are asked for, half-open.
        columns: Those that count, half-open.
    """
    height, width = marks.shape[-2:]
    row, column = (torch.arange(*ends, device=marks.device) for ends in (rows, (0, width)))
    inside = ((row >= 0) & (row < height))[:, None] & (column >= columns[0]) & (column < columns[1])
    chosen = marks.index_select(-2, row.clamp(0, max(height - 1, 0))) & inside
    order = torch.argsort(chosen.to(torch.int8), dim=-1, descending=True, stable=True)
    count = chosen.sum(-1, keepdim=True)
    order = torch.where(column < count, order, -1)
    return torch.cat([count, order], -1).to(torch.int32).contiguous()
