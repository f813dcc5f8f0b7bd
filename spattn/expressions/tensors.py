"""The tensors of one call as NumPy arrays, read the way expressions read them.

Dimensions before the indexed ones are batch, then head; one of size 1 serves all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spattn.errors import ArgumentError, BindError
from spattn.expressions.evaluation import BoolArray, Env, IntArray
from spattn.expressions.nodes import RandomTable, Tokens
from spattn.philox import random_blocks

Array = NDArray[Any]


class Tensors:
    """The tensors of a call; implements `Reads`.

    Args:
        values: Arrays by name: integers or truth values. Documents are ids `[kv_len]` or `[batch, kv_len]`, or
            cumulative lengths (not kv_len of them, from 0 to kv_len); tokens are 0-D, `[n]` or `[batch, n]`; lengths
            0-D or `[batch]`; tables `[.., query blocks, key blocks]`.
        kv_len: Number of keys.
        batch_size: Number of batch entries.
        num_heads: Number of query heads.

    Raises:
        BindError: E031, a tensor of another type.
    """

    def __init__(self, values: Mapping[str, Any], kv_len: int, batch_size: int = 1, num_heads: int = 1) -> None:
        self._values = {name: _array(name, value) for name, value in values.items()}
        self._kv_len, self._sizes = kv_len, (batch_size, num_heads)
        self._documents: dict[str, tuple[IntArray, ...]] = {}
        self._random: dict[tuple[RandomTable, int, int, int, int], BoolArray] = {}

    @property
    def names(self) -> frozenset[str]:
        """The tensors that were given."""
        return frozenset(self._values)

    def require(self, names: Iterable[str]) -> None:
        """Refuses a call that lacks a tensor or has one too many."""
        wanted = set(names)
        if missing := sorted(wanted - self._values.keys()):
            raise self._missing(missing)
        if extra := sorted(self._values.keys() - wanted):
            hint = f"it reads {', '.join(sorted(wanted))}" if wanted else "it reads none"
            raise BindError("E038", f"the pattern reads no tensor {', '.join(extra)}", hint=hint)

    def read(self, tensor: str, index: tuple[IntArray, ...], env: Env) -> IntArray:
        """Entries of a tensor, each index clipped into it."""
        name, dot, field = tensor.partition(".")
        if dot:
            array = self._segments(name)[("ids", "start", "stop", "run_start", "run_stop").index(field)]
        else:
            array = self._get(tensor)
            if array.ndim == 0:
                # one number serves for a list, as one length for all batch entries
                return array.astype(np.int64)
        return self._entries(tensor, array, index, env).astype(np.int64)

    def tokens(self, tokens: Tokens, length: int, env: Env) -> IntArray:
        """The positions in `0 .. length-1` that a list names, ascending, without repetition."""
        given = (self._get(name) for name in tokens.tensors)
        rows = (array[env["b"] % len(array)] if array.ndim == 2 else array.ravel() for array in given)
        named = np.concatenate([np.asarray(tokens.values, np.int64), *rows]).astype(np.int64)
        found = np.unique(np.where(named < 0, named + length, named))
        return found[(found >= 0) & (found < length)]

    def spread(self, tensor: str, indexed: int) -> tuple[bool, bool]:
        """Whether the tensor differs between batch entries, and between heads."""
        name, dot, _ = tensor.partition(".")
        array = self._segments(name)[0] if dot else self._get(tensor)
        leading = array.shape[: max(array.ndim - indexed, 0)]
        batch, heads = (*(size > 1 for size in leading), False, False)[:2]
        return batch, heads

    def has_token(self, tensor: str, position: IntArray, length: IntArray, env: Env) -> BoolArray:
        """Is `position` among the tensor's tokens, negative ones counted from `length`?"""
        tokens = np.atleast_1d(self._get(tensor)).astype(np.int64)
        if tokens.ndim == 1:
            return np.isin(position, tokens[tokens >= 0]) | np.isin(position - length, tokens[tokens < 0])
        none = np.zeros((), np.bool_)
        columns = (self._entries(tensor, column, (), env) for column in np.moveaxis(tokens, -1, 0))
        found = (position == np.where(token < 0, token + length, token) for token in columns)
        return np.asarray(reduce(np.logical_or, found, none))

    def in_given(self, tensor: str, row: IntArray, column: IntArray, env: Env) -> BoolArray:
        """Is the block marked? Outside the table nothing is."""
        table = self._get(tensor)
        if table.ndim < 2:
            raise ArgumentError("E060", f"{tensor} is a table of blocks and has 2 dimensions or more, not {table.ndim}")
        rows, columns = table.shape[-2:]
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        if not rows or not columns:
            return np.asarray(inside)
        return np.asarray(inside & self._entries(tensor, table, (row, column), env).astype(np.bool_))

    def in_random(self, table: RandomTable, key_blocks: int, row: IntArray, column: IntArray, env: Env) -> BoolArray:
        """Is block `column` among those drawn for block `row`?"""
        head = np.asarray(env["h"], np.int64)
        if not row.size or not head.size or key_blocks <= 0:
            return np.zeros(np.broadcast_shapes(row.shape, column.shape, head.shape), np.bool_)
        first = int(row.min())
        drawn = self._drawn(table, key_blocks, first, int(row.max()) + 1, int(head.max()) + 1)
        inside = (column >= 0) & (column < key_blocks)
        return np.asarray(inside & drawn[head, row - first, np.clip(column, 0, key_blocks - 1)])

    def same_segment(self, ids: str, left: IntArray, right: IntArray, env: Env) -> BoolArray:
        """Do both positions lie in one document?"""
        documents = self._segments(ids)[0]
        inside = (left >= 0) & (left < self._kv_len) & (right >= 0) & (right < self._kv_len)
        if not self._kv_len:
            return np.asarray(inside)
        same = self._entries(ids, documents, (left,), env) == self._entries(ids, documents, (right,), env)
        return np.asarray(inside & same)

    def leading(self, tensor: str, indexed: int) -> int:
        """How many dimensions the tensor has before the indexed ones."""
        return max(self._get(tensor).ndim - indexed, 0)

    def document_ids(self, ids: str) -> IntArray:
        """The documents as ids, `[kv_len]` or `[batch, kv_len]`."""
        return self._segments(ids)[0]

    def _drawn(self, table: RandomTable, key_blocks: int, first: int, stop: int, heads: int) -> BoolArray:
        """`[heads, stop - first, key_blocks]`: the whole table, kept for the next reader."""
        key = (table, key_blocks, first, stop, heads)
        if key not in self._random:
            rows, count = np.arange(first, stop), min(table.count, key_blocks)
            blocks = random_blocks(count, table.seed, table.past, key_blocks, np.arange(heads), rows)
            marked = np.zeros((heads, stop - first, key_blocks + 1), np.bool_)
            np.put_along_axis(marked, np.where(blocks < 0, key_blocks, blocks), True, axis=2)
            self._random[key] = marked[:, :, :-1]
        return self._random[key]

    def _entries(self, name: str, array: Array, index: tuple[IntArray, ...], env: Env) -> Array:
        """`array[b, h, *index]`, as far as the array has those dimensions, each index clipped."""
        leading = array.ndim - len(index)
        if not 0 <= leading <= 2:
            raise ArgumentError(
                "E060", f"{name} has {array.ndim} dimensions, {len(index)} to {len(index) + 2} are read"
            )
        outer = []
        for axis, symbol in enumerate(("b", "h")[:leading]):
            size = array.shape[axis]
            if size not in (1, self._sizes[axis]):
                what = ("batch entries", "heads")[axis]
                raise ArgumentError("E060", f"{name} has {size} {what}, the call has {self._sizes[axis]}")
            outer.append(np.asarray(env[symbol] if size > 1 else 0, np.int64))
        if 0 in array.shape[leading:]:
            if self._kv_len == 0:
                return np.zeros(np.broadcast_shapes(*(i.shape for i in index)), array.dtype)
            raise ArgumentError("E060", f"{name} is empty, shape {list(array.shape)}")
        inner = [np.clip(i, 0, size - 1) for i, size in zip(index, array.shape[leading:], strict=True)]
        return np.asarray(array[(*outer, *inner)])

    def _segments(self, name: str) -> tuple[IntArray, ...]:
        """(id, first position of that id, last one + 1, first of its adjacent run, last one + 1) at each position."""
        if name not in self._documents:
            ids = self._ids(name)
            bounds = [(*_bounds(row), *_run(row)) for row in np.atleast_2d(ids)]
            columns = (np.array([b[i] for b in bounds], np.int64).reshape(ids.shape) for i in range(4))
            self._documents[name] = ids, *columns
        return self._documents[name]

    def _ids(self, name: str) -> IntArray:
        given = self._get(name).astype(np.int64)
        if given.ndim in (1, 2) and given.shape[-1] == self._kv_len:
            return given
        if given.ndim == 1 and _is_cumulative(given, self._kv_len):
            return np.repeat(np.arange(len(given) - 1), np.diff(given))
        message = f"{name} has shape {list(given.shape)}, but there are {self._kv_len} keys"
        hint = "give an id for each key, or cumulative lengths from 0 to the number of keys"
        raise ArgumentError("E060", message, hint=hint)

    def _get(self, name: str) -> Array:
        if name not in self._values:
            raise self._missing([name])
        return self._values[name]

    def _missing(self, names: list[str]) -> BindError:
        return BindError(
            "E030",
            f"the pattern reads {', '.join(names)}, which the call does not give",
            hint=f"give a tensor: {names[0]}=..",
        )


NOTHING = Tensors({}, 0)
"""For expressions that read none."""


def _is_cumulative(given: IntArray, total: int) -> bool:
    """Is it `0, .., total` and nowhere descending?"""
    return len(given) > 0 and given[0] == 0 and given[-1] == total and bool((np.diff(given) >= 0).all())


def _array(name: str, value: Any) -> Array:
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "biu":
        raise BindError("E031", f"{name} has dtype {array.dtype}, integers or truth values are needed")
    return array


def _bounds(ids: IntArray) -> tuple[IntArray, IntArray]:
    """Of each position's id the first place and the place after the last; ids need not be sorted."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    _, last = np.unique(ids[::-1], return_index=True)
    return first[inverse].astype(np.int64), (len(ids) - last)[inverse].astype(np.int64)


def _run(ids: IntArray) -> tuple[IntArray, IntArray]:
    """Of each position the first place of the run of equal, adjacent ids that holds it, and the place after it."""
    edges = np.flatnonzero(np.diff(ids)) + 1
    edges = np.concatenate([[0], edges, [len(ids)]]).astype(np.int64)
    return np.repeat(edges[:-1], np.diff(edges)), np.repeat(edges[1:], np.diff(edges))
