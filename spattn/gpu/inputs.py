"""Run-time tensors as the kernels of a launch read them: given, made for lengths alone, or derived by each call.

Sizes come from shapes alone: nothing here reads a value back to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from spattn.call.prepared import Prepared
from spattn.call.request import Request
from spattn.codegen.module import KernelSource
from spattn.codegen.parameters import (
    BlockLists,
    DocumentBounds,
    DocumentIds,
    Floats,
    GivenTokens,
    Membership,
    Role,
    TokenList,
    Values,
    dimensions,
)
from spattn.errors import ArgumentError
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import GivenTable, ListedTable, RandomTable, Tokens
from spattn.expressions.tensors import NOTHING
from spattn.expressions.width import LONGEST
from spattn.gpu import derivations
from spattn.gpu.documents import document_bounds, document_ids
from spattn.gpu.extent import Numbers
from spattn.gpu.frame import Frame
from spattn.gpu.requests import request_table
from spattn.philox import random_blocks

NOWHERE = LONGEST


class Inputs:
    """The run-time tensors of a launch, those of one pass after those of the one before.

    Args:
        texts: The passes.
        request: A call of the kind that they serve.
    """

    def __init__(self, texts: Sequence[KernelSource], request: Request) -> None:
        self._frame = Frame.of(request)
        self._passes = tuple(one.roles for one in texts)
        self._roles = tuple(role for roles in self._passes for role in roles)

    def __bool__(self) -> bool:
        return bool(self._roles or self._frame.positions.by_request)

    def at(self, frame: Frame) -> Inputs:
        """Those of a call in another frame."""
        made = copy(self)
        made._frame = frame
        return made

    def tensors(self, prepared: Prepared) -> list[torch.Tensor]:
        """They themselves, derived on the current stream as far as they have not been; last where requests stand."""
        found = [_tensor(role, self._frame, prepared) for role in self._roles]
        return found + ([request_table(self._frame, prepared)] if self._frame.positions.by_request else [])

    def numbers(self, prepared: Prepared) -> Numbers:
        """The sizes and strides of those of each pass."""
        made = iter(self.tensors(prepared))
        return tuple(tuple(_numbers_of(role, next(made), self._frame) for role in roles) for roles in self._passes)


class RoleInputs:
    """The run-time tensors of one kernel.

    Args:
        roles: What they are.
        frame: Where rows and keys stand.
    """

    def __init__(self, roles: Sequence[Role], frame: Frame) -> None:
        self._roles, self._frame = roles, frame

    def tensors(self, prepared: Prepared) -> list[torch.Tensor]:
        """They themselves."""
        return [_tensor(role, self._frame, prepared) for role in self._roles]

    def numbers(self, tensors: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
        """The sizes and strides of each of them."""
        return [_numbers_of(role, one, self._frame) for role, one in zip(self._roles, tensors, strict=True)]


def _numbers_of(role: Role, tensor: torch.Tensor, frame: Frame) -> tuple[int, ...]:
    """Strides of batch and head, size and stride of each dimension, and of lists the first row."""
    extra = tensor.dim() - dimensions(role)
    numbers = [0 if tensor.shape[i] == 1 else tensor.stride(i) for i in range(extra)] + [0] * (2 - extra)
    for i in range(extra, tensor.dim()):
        numbers += [tensor.shape[i], tensor.stride(i)]
    if isinstance(role, BlockLists):
        first, _ = frame.blocks(role.size, keys=role.transposed)
        numbers.append(0 if frame.positions.by_request or role.given else first)
        if role.given and tensor.shape[extra] == 1:
            numbers[2:4] = LONGEST, 0  # one list for all rows
        if role.grouped:
            numbers.append(frame.num_heads // tensor.shape[1] if extra == 2 and tensor.shape[1] > 1 else 1)
    return tuple(numbers)


def _tensor(role: Role, frame: Frame, prepared: Prepared) -> torch.Tensor:
    match role:
        case Values(name, rank):
            return _values(name, rank, prepared)
        case Floats(name, rank):
            return prepared[name].detach().reshape(()) if rank == 0 else prepared[name].detach()
        case DocumentIds(documents, side):
            return document_ids(documents, side, frame.sides(documents), prepared)
        case DocumentBounds(documents):
            return document_bounds(role, frame.sides(documents), prepared)
        case GivenTokens(name):
            return _row(prepared[name])
        case TokenList(tokens):
            return _token_list(tokens, frame, prepared)
        case Membership(tokens, length):
            return _membership(tokens, int(evaluate(length, {"kv_len": frame.kv_len}, NOTHING)), frame, prepared)
        case BlockLists(table, size, transposed):
            if isinstance(table, RandomTable):
                return _random_lists(table, size, transposed, frame)
            if role.given:
                return _given_lists(prepared[table.tensor])
            if isinstance(table, ListedTable):
                return _inverse_lists(table, size, frame, prepared)
            assert isinstance(table, GivenTable), "no walk follows a table of bits"
            return _block_lists(table, size, transposed, frame, prepared)


def _block_lists(table: GivenTable, size: int, transposed: bool, frame: Frame, prepared: Prepared) -> torch.Tensor:
    rows, columns = (frame.blocks(size, keys=keys) for keys in (transposed, not transposed))
    if frame.positions.by_request:  # all of the table, and a list for what is outside of it
        height, width = prepared[table.tensor].shape[-2:]
        rows, columns = ((0, width + 1), (0, height)) if transposed else ((0, height + 1), (0, width))

    def made() -> torch.Tensor:
        entries = _numbers(prepared[table.tensor])
        return derivations.block_lists(entries, rows, columns, transposed=transposed)(entries)

    return prepared.derived(("blocks", table, rows, columns, transposed), (table.tensor,), made)


def _given_lists(lists: torch.Tensor) -> torch.Tensor:
    """As they are, where kernels can read them so."""
    lists = lists.to(torch.int32)
    return lists if lists.stride(-1) == 1 else lists.contiguous()


def _inverse_lists(table: ListedTable, size: int, frame: Frame, prepared: Prepared) -> torch.Tensor:
    """Of each block of keys the blocks of queries that list it."""
    rows, columns = frame.blocks(size, keys=True), frame.blocks(size, keys=False)
    if frame.positions.by_request:  # of the longest, and a list for what is outside
        longest = max(frame.positions.kv_len, frame.queries[1])
        rows, columns = (0, -(-frame.positions.kv_len // size) + 1), (0, -(-longest // size))

    def made() -> torch.Tensor:
        lists = prepared[table.tensor]
        width = max(rows[1], 1)
        counts, blocks = lists[..., :1], lists[..., 1:]
        listed = (torch.arange(blocks.shape[-1], device=lists.device) < counts) & (blocks >= 0) & (blocks < width)
        marked = torch.zeros((*lists.shape[:-1], width + 1), dtype=torch.int8, device=lists.device)
        marked = marked.scatter_(-1, torch.where(listed, blocks, width).long(), 1)[..., :width]
        if marked.shape[-2] == 1:
            marked = marked.expand(*marked.shape[:-2], max(columns[1], 1), width)
        return derivations.block_lists(marked, rows, columns, transposed=True)(marked)

    return prepared.derived(("lists", table, rows, columns), (table.tensor,), made)


def _values(name: str, rank: int, prepared: Prepared) -> torch.Tensor:
    tensor = _numbers(prepared[name])
    if 0 in tensor.shape[max(tensor.dim() - rank, 0) :]:
        raise ArgumentError("E060", f"{name} is empty, shape {list(tensor.shape)}")
    if tensor.dim() < rank:
        tensor = tensor.reshape([1] * (rank - tensor.dim()) + list(tensor.shape))
    if tensor.dim() > rank + 2:
        raise ArgumentError(
            "E060", f"{name} has {tensor.dim()} dimensions; it is read with {rank}, so at most {rank + 2}"
        )
    return tensor


def _numbers(tensor: torch.Tensor) -> torch.Tensor:
    """Truth values as numbers of 8 bits, which they are."""
    return tensor.view(torch.int8) if tensor.dtype == torch.bool else tensor


def _row(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dim() else tensor[None]


def _token_list(tokens: Tokens, frame: Frame, prepared: Prepared) -> torch.Tensor:
    length = frame.kv_len
    if frame.positions.by_request and (tokens.tensors or min(tokens.values, default=0) < 0):
        return _of_requests(derivations.token_list, tokens, length, frame, prepared)
    if not tokens.tensors:
        return _constant_list(_inside(tokens, length), frame.device)
    return _of_tokens(derivations.token_list, tokens, length, prepared)


def _of_tokens(
    derive: Callable[..., derivations.Derivation], tokens: Tokens, length: int, prepared: Prepared
) -> torch.Tensor:
    """The list or the membership of tokens, for all requests with one length."""

    def made() -> torch.Tensor:
        named = _named(tokens, prepared)
        return derive(named, length)(named)

    return prepared.derived((derive.__name__, tokens, length), tokens.tensors, made)


def _of_requests(
    derive: Callable[..., derivations.Derivation],
    tokens: Tokens,
    length: int,
    frame: Frame,
    prepared: Prepared,
) -> torch.Tensor:
    """The list or the membership of tokens, for each request with its own length."""
    by_request = frame.positions.by_request

    def made() -> torch.Tensor:
        table = request_table(frame, prepared)
        named = _named(tokens, prepared) if tokens.tensors else _constants(tokens.values, frame.device)
        named = named.expand(table.shape[0], named.shape[-1])
        return derive(named, length, table)(named, table)

    return prepared.derived((derive.__name__, tokens, length, frame.positions), (*tokens.tensors, *by_request), made)


def _membership(tokens: Tokens, length: int, frame: Frame, prepared: Prepared) -> torch.Tensor:
    if frame.positions.by_request:  # whose length is that of the whole, at most as long as a number says
        return _of_requests(derivations.membership, tokens, frame.positions.kv_len, frame, prepared)
    if not tokens.tensors:
        return _constant_membership(_inside(tokens, length), frame.device)
    return _of_tokens(derivations.membership, tokens, length, prepared)


def _named(tokens: Tokens, prepared: Prepared) -> torch.Tensor:
    """All tokens side by side, `[n]` or `[batch, n]`."""
    parts = [_row(prepared[name]) for name in tokens.tensors]
    if len(parts) == 1 and not tokens.values:
        return _numbers(parts[0])
    parts = [_constants(tokens.values, parts[0].device), *(part.to(torch.int64) for part in parts)]
    batch = max((part.shape[0] for part in parts if part.dim() > 1), default=0)
    return torch.cat([part.expand(batch, part.shape[-1]) for part in parts] if batch else parts, -1)


@lru_cache(maxsize=256)
def _constants(values: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=device)


@lru_cache(maxsize=256)
def _constant_list(inside: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Ascending; NOWHERE alone where none is inside."""
    return torch.tensor(inside or (NOWHERE,), dtype=torch.int32, device=device)


@lru_cache(maxsize=256)
def _constant_membership(inside: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Up to the last that is one: a position behind it is outside."""
    found = torch.zeros(max(inside, default=0) + 1, dtype=torch.int8)
    found[list(inside)] = 1
    return found.to(device)


def _inside(tokens: Tokens, length: int) -> tuple[int, ...]:
    """Positions, ascending; the same for every length past the last of them, where none counts from the end."""
    if min(tokens.values, default=0) >= 0:
        length = min(length, max(tokens.values, default=0) + 1)
    return _positions(tokens.values, length)


@lru_cache(maxsize=256)
def _positions(values: tuple[int, ...], length: int) -> tuple[int, ...]:
    known = sorted({v if v >= 0 else v + length for v in values})
    return tuple(v for v in known if 0 <= v < length)


@lru_cache(maxsize=64)
def _random_lists(table: RandomTable, size: int, transposed: bool, frame: Frame) -> torch.Tensor:
    first, last = frame.blocks(size, keys=False)
    blocks = int(evaluate(table.key_blocks, {"kv_len": frame.kv_len}, NOTHING))
    rows = np.arange(first, last)
    drawn = random_blocks(table.count, table.seed, table.past, blocks, np.arange(frame.num_heads), rows)
    begin, end = frame.blocks(size, keys=True)
    drawn = np.where((drawn >= begin) & (drawn < end), drawn, -1)
    lists = inverse(drawn - begin, end - begin, first) if transposed else _counted(drawn)
    return torch.from_numpy(lists).to(frame.device)[None]


def _counted(drawn: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """int32 [heads, rows, 1 + n]: how many blocks a row drew, these ascending, then -1."""
    ordered = np.sort(np.where(drawn < 0, NOWHERE, drawn), -1)
    count = (ordered < NOWHERE).sum(-1, keepdims=True)
    return np.concatenate([count, np.where(ordered == NOWHERE, -1, ordered)], -1).astype(np.int32)


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
