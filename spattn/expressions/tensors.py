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
from spattn.expressions.documents import DocumentArrays
from spattn.expressions.evaluation import BoolArray, Env, IntArray
from spattn.expressions.nodes import MAX_BITS, DocumentBound, Documents, RandomTable, Tokens
from spattn.philox import random_blocks

Array = NDArray[Any]


class Tensors:
    """The tensors of a call; implements `Reads`.

    Args:
        values: Arrays by name: integers or truth values. Documents are ids, one a key or a row, with batch entries
            before; segments are cumulative lengths `[n]`; tokens are 0-D, `[n]` or `[batch, n]`; lengths 0-D or
            `[batch]`; tables `[.., query blocks, key blocks]`; lists of blocks `[.., query blocks, 1 + n]`.
        kv_len: Number of keys.
        batch_size: Number of batch entries.
        num_heads: Number of query heads.
        q_len: Number of queries; as many as keys where it is not given.
        longer: Lists of ids may be longer than these lengths, which are those of one batch entry.

    Raises:
        BindError: E031, a tensor of another type.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        kv_len: int,
        batch_size: int = 1,
        num_heads: int = 1,
        q_len: int | None = None,
        *,
        longer: bool = False,
    ) -> None:
        self._values = {name: _array(name, value) for name, value in values.items()}
        self._kv_len, self._sizes = kv_len, (batch_size, num_heads)
        self._q_len, self._longer = kv_len if q_len is None else q_len, longer
        self._documents: dict[object, IntArray] = {}
        self._tables: dict[str, BoolArray] = {}
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

    def read(self, tensor: str | DocumentBound, index: tuple[IntArray, ...], env: Env) -> IntArray:
        """Entries of a tensor or of the ends of documents, each index clipped into it."""
        if isinstance(tensor, DocumentBound):
            return self._entries(str(tensor), self.document_bounds(tensor), index, env)
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

    def spread(self, tensor: str | DocumentBound, indexed: int) -> tuple[bool, bool]:
        """Whether the tensor differs between batch entries, and between heads."""
        if isinstance(tensor, DocumentBound):
            return self.documents_spread(tensor.documents), False
        array = self._get(tensor)
        leading = array.shape[: max(array.ndim - indexed, 0)]
        batch, heads = (*(size > 1 for size in leading), False, False)[:2]
        return batch, heads

    def documents_spread(self, documents: Documents) -> bool:
        """Whether documents differ between batch entries."""
        return any(self._get(name).ndim > 1 for name in documents.tensors) and self._sizes[0] > 1

    def length(self, tensor: str) -> int:
        """How many entries the last dimension has."""
        array = self._get(tensor)
        if not array.ndim:
            raise ArgumentError("E060", f"{tensor} is a number; it has a dimension at least")
        return int(array.shape[-1])

    def has_bit(self, tensor: str, row: IntArray, column: IntArray, env: Env) -> BoolArray:
        """Has the entry `row` the bit `column`? Outside the tensor none has."""
        words = self._get(tensor).astype(np.int64)
        inside = (row >= 0) & (row < self.length(tensor)) & (column >= 0) & (column < MAX_BITS)
        word = self._entries(tensor, words, (row,), env)
        return np.asarray(inside & ((word >> np.clip(column, 0, MAX_BITS - 1)) & 1 != 0))

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

    def in_listed(self, tensor: str, row: IntArray, column: IntArray, env: Env) -> BoolArray:
        """Is the block in the list of its row? One list is that of all rows from the first one on."""
        marked = self._marked(tensor)
        rows, columns = marked.shape[-2:]
        inside = (row >= 0) & ((row < rows) | (rows == 1)) & (column >= 0) & (column < columns)
        return np.asarray(inside & self._entries(tensor, marked, (row, column), env))

    def in_random(self, table: RandomTable, key_blocks: int, row: IntArray, column: IntArray, env: Env) -> BoolArray:
        """Is block `column` among those drawn for block `row`?"""
        head = np.asarray(env["h"], np.int64)
        if not row.size or not head.size or key_blocks <= 0:
            return np.zeros(np.broadcast_shapes(row.shape, column.shape, head.shape), np.bool_)
        first = int(row.min())
        drawn = self._drawn(table, key_blocks, first, int(row.max()) + 1, int(head.max()) + 1)
        inside = (column >= 0) & (column < key_blocks)
        return np.asarray(inside & drawn[head, row - first, np.clip(column, 0, key_blocks - 1)])

    def same_segment(self, documents: Documents, left: IntArray, right: IntArray, env: Env) -> BoolArray:
        """Are a query's index and a key's of one document?"""
        queries, keys = self.document_ids(documents, "queries"), self.document_ids(documents, "keys")
        rows, columns = queries.shape[-1], keys.shape[-1]
        inside = (left >= 0) & (left < rows) & (right >= 0) & (right < columns)
        if not rows or not columns:
            return np.asarray(inside)
        name = str(documents)
        return np.asarray(
            inside & (self._entries(name, queries, (left,), env) == self._entries(name, keys, (right,), env))
        )

    def leading(self, tensor: str | DocumentBound, indexed: int) -> int:
        """How many dimensions the tensor has before the indexed ones."""
        if isinstance(tensor, DocumentBound):
            return self.documents_leading(tensor.documents)
        return max(self._get(tensor).ndim - indexed, 0)

    def documents_leading(self, documents: Documents) -> int:
        """1 where each batch entry has documents of its own."""
        return int(any(self._get(name).ndim > 1 for name in documents.tensors))

    def document_ids(self, documents: Documents, side: str) -> IntArray:
        """The documents of a side's indices as ids, `[length]` or `[batch, length]`."""
        key = (documents, side)
        if key not in self._documents:
            self._documents[key] = self._arrays(documents).ids(side)
        return self._documents[key]

    def document_bounds(self, bound: DocumentBound) -> IntArray:
        """The ends of documents that `bound` stands for, `[length]` or `[batch, length]`."""
        if bound not in self._documents:
            self._documents[bound] = self._arrays(bound.documents).bounds(bound)
        return self._documents[bound]

    def _arrays(self, documents: Documents) -> DocumentArrays:
        arrays = {name: self._get(name).astype(np.int64) for name in documents.tensors}
        lengths = {"queries": self._q_len if documents.two_sided else self._kv_len, "keys": self._kv_len}
        if self._longer:
            sides = ((documents.queries, "queries"), (documents.keys, "keys"))
            cut = {side.tensor: lengths[name] for side, name in sides if not side.cumulative}
            arrays = {name: one[..., : cut[name]] if name in cut else one for name, one in arrays.items()}
        return DocumentArrays(documents, arrays, lengths, self._sizes[0])

    def _marked(self, tensor: str) -> BoolArray:
        """Lists of blocks as the table `[.., rows, blocks]` that they mark, kept for the next reader."""
        if tensor not in self._tables:
            lists = self._get(tensor)
            if lists.ndim < 2 or 0 in lists.shape[-2:]:
                shape = f"it has shape {list(lists.shape)}"
                raise ArgumentError("E060", f"{tensor} holds lists of blocks, [query blocks, 1 + n], and {shape}")
            count, blocks = lists[..., :1].astype(np.int64), lists[..., 1:].astype(np.int64)
            # a block of one position at least: none has the number of the length
            listed = (np.arange(blocks.shape[-1]) < count) & (blocks >= 0) & (blocks < self._kv_len)
            width = int(blocks.max(where=listed, initial=-1)) + 1
            marked = np.zeros((*lists.shape[:-1], width + 1), np.bool_)
            np.put_along_axis(marked, np.where(listed, blocks, width), True, axis=-1)
            if lists.ndim == 4 and lists.shape[1] > 1 and self._sizes[1] % lists.shape[1] == 0:
                marked = np.repeat(marked, self._sizes[1] // lists.shape[1], axis=1)
            marked[..., width] = False
            self._tables[tensor] = marked
        return self._tables[tensor]

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
            if 0 in (self._kv_len, self._q_len):
                return np.zeros(np.broadcast_shapes(*(i.shape for i in index)), array.dtype)
            raise ArgumentError("E060", f"{name} is empty, shape {list(array.shape)}")
        inner = [np.clip(i, 0, size - 1) for i, size in zip(index, array.shape[leading:], strict=True)]
        return np.asarray(array[(*outer, *inner)])

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


def _array(name: str, value: Any) -> Array:
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "biu":
        raise BindError("E031", f"{name} has dtype {array.dtype}, integers or truth values are needed")
    return array
