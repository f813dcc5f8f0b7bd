"""One (batch entry, head) of a launch: the lengths at which a layout's formulas get their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spattn.expressions.algebra import subexpressions
from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.nodes import (
    BitTable,
    Bool,
    Expr,
    GivenTable,
    InTable,
    ListedTable,
    Member,
    RandomTable,
    Read,
    Relative,
    SameSegment,
    Sym,
    Tokens,
)
from spattn.expressions.tensors import Tensors
from spattn.layout.ir import Layout


@dataclass(frozen=True)
class Call:
    """One (batch entry, head) of a launch: lengths in tokens, positions of rows and columns half-open."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    kv_len: int
    tensors: Tensors
    batch: int = 0
    head: int = 0
    batch_size: int = 1
    num_heads: int = 1
    q_offset: int = 0

    @property
    def env(self) -> dict[str, int]:
        """Symbols of a launch."""
        return {
            "row_begin": self.rows[0],
            "row_end": self.rows[1],
            "column_begin": self.columns[0],
            "column_end": self.columns[1],
            "kv_len": self.kv_len,
            "q_offset": self.q_offset,
            "h": self.head,
            "b": self.batch,
            "num_heads": self.num_heads,
            "batch_size": self.batch_size,
        }

    def value(self, node: Expr | Bool, **symbols: IntArray) -> NDArray[np.generic]:
        """A node at this call and the given symbols."""
        return np.asarray(evaluate(node, {**self.env, **symbols}, self.tensors))

    def integer(self, node: Expr, **symbols: IntArray) -> IntArray:
        """An integer node, of the symbols' common shape."""
        value = self.value(node, **symbols).astype(np.int64)
        return np.broadcast_to(value, np.broadcast_shapes(value.shape, *(s.shape for s in symbols.values())))

    def truth(self, node: Bool, **symbols: IntArray) -> NDArray[np.bool_]:
        """A Boolean node, of the symbols' common shape."""
        value = self.value(node, **symbols).astype(np.bool_)
        return np.broadcast_to(value, np.broadcast_shapes(value.shape, *(s.shape for s in symbols.values())))

    def tokens(self, tokens: Tokens) -> IntArray:
        """The positions that a list names, ascending, without repetition."""
        return self.tensors.tokens(tokens, self.kv_len, self.env)


@dataclass(frozen=True)
class Spread:
    """Whether a condition may differ between batch entries, and between heads."""

    batch: bool
    heads: bool


def spread(condition: Bool, tensors: Tensors) -> Spread:
    """What `condition` depends on besides positions and lengths."""
    batch = heads = False
    for part in subexpressions(condition):
        match part:
            case Sym(name):
                axes = (name == "b", name == "h")
            case InTable(RandomTable(), _, _):
                axes = (False, True)
            case InTable(GivenTable(tensor) | ListedTable(tensor), _, _):
                axes = tensors.spread(tensor, 2)
            case InTable(BitTable(tensor), _, _):
                axes = tensors.spread(tensor, 1)
            case Read(tensor, index):
                axes = tensors.spread(tensor, len(index))
            case Member(_, tokens, _):
                axes = (any(tensors.spread(name, 1)[0] for name in tokens.tensors), False)
            case SameSegment() | Relative():
                axes = (tensors.documents_spread(part.documents), False)
            case _:
                continue
        batch, heads = batch or axes[0], heads or axes[1]
    return Spread(batch, heads)


def calls(
    layout: Layout,
    q_len: int,
    kv_len: int,
    tensors: Tensors,
    *,
    q_offset: int | None = None,
    given: tuple[int, int] | None = None,
    batch_size: int = 1,
    num_heads: int = 1,
    only: int | None = None,
) -> Iterator[Call]:
    """A call for each (batch entry, head) that may differ from others: one alone where none does.

    Args:
        layout: Along which passes.
        q_len: Rows.
        kv_len: Keys of the whole.
        tensors: The pattern's.
        q_offset: Position of the first row; the last stands at the last key where it is not given.
        given: Positions of the keys that are given, half-open; all where it is not said.
        batch_size: Batch entries.
        num_heads: Query heads.
        only: The one batch entry of which these are the lengths.
    """
    first = kv_len - q_len if q_offset is None else q_offset
    queries, keys = (first, first + q_len), given or (0, kv_len)
    rows, columns = (queries, keys) if layout.direction == "queries" else (keys, queries)
    over = spread(layout.condition, tensors)
    entries = range(batch_size if over.batch else min(batch_size, 1)) if only is None else (only,)
    for batch in entries:
        for head in range(num_heads if over.heads else min(num_heads, 1)):
            yield Call(rows, columns, kv_len, tensors, batch, head, batch_size, num_heads, first)
