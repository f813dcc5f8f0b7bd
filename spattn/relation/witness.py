"""A pair of positions as evidence: one call, small and complete, in which two patterns differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spattn.errors import SpattnError
from spattn.expressions.algebra import substitute
from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.nodes import (
    Bool,
    DocumentBound,
    Expr,
    GivenTable,
    InTable,
    ListedTable,
    Member,
    Read,
    SameSegment,
    Side,
)
from spattn.expressions.tensors import Tensors
from spattn.relation.abstraction import Abstraction, Assignment

Nested = Any
"""An integer, or a tuple of these."""

MAX_INDEX = 2**12
NO_SEGMENT = -1  # among the cuts of cumulative lengths: there is no document at all


@dataclass(frozen=True)
class Witness:
    """A query q and a key k of a call with kv_len keys, and the tensors it is given.

    Attributes:
        first: The pair is in the first pattern alone, else in the second alone.
        tensors: (name, values) of each free name, nested tuples.
    """

    kv_len: int
    q: int
    k: int
    head: int = 0
    batch: int = 0
    num_heads: int = 1
    batch_size: int = 1
    tensors: tuple[tuple[str, Nested], ...] = ()
    first: bool = True

    @property
    def arrays(self) -> dict[str, IntArray]:
        """The tensors as a call takes them."""
        return {name: np.asarray(values, np.int64) for name, values in self.tensors}

    @property
    def env(self) -> dict[str, int]:
        """The symbols of the pair."""
        heads = {"h": self.head, "b": self.batch, "num_heads": self.num_heads, "batch_size": self.batch_size}
        return {"kv_len": self.kv_len, "q": self.q, "k": self.k, "q_offset": 0, **heads}

    def __str__(self) -> str:
        parts = [f"q={self.q}", f"k={self.k}", f"kv_len={self.kv_len}"]
        parts += [f"head={self.head} of {self.num_heads}"] if self.num_heads > 1 else []
        parts += [f"batch={self.batch} of {self.batch_size}"] if self.batch_size > 1 else []
        return ", ".join([*parts, *(f"{name}={_text(values)}" for name, values in self.tensors)])


def _text(values: Nested) -> str:
    return str(np.asarray(values, np.int64).tolist())


def holds_at(condition: Bool, witness: Witness) -> bool | None:
    """The condition's meaning at the pair, None where the tensors do not fit it."""
    try:
        tensors = Tensors(witness.arrays, witness.kv_len, witness.batch_size, witness.num_heads)
        return bool(evaluate(condition, witness.env, tensors))
    except SpattnError:
        return None


def witness_at(point: Mapping[str, int], assignment: Assignment, abstraction: Abstraction, first: bool) -> Witness:
    """The pair at a point of the abstraction, with tensors made so that guards and numbers have their values."""
    tensors = _Tensors(point, abstraction, {})
    for guard, value in assignment.values.items():
        tensors.add_guard(guard, value)
    for number, symbol in abstraction.numbers.items():
        tensors.add_number(number, point[str(getattr(symbol, "name", ""))])
    return Witness(
        point["kv_len"],
        point["q"],
        point.get("k", 0),
        point.get("h", 0),
        point.get("b", 0),
        point.get("num_heads", 1),
        point.get("batch_size", 1),
        tuple((name, frozen(value)) for name, value in sorted(tensors.arrays().items())),
        first,
    )


def frozen(array: Any) -> Nested:
    """An array as nested tuples."""
    values = array.tolist() if hasattr(array, "tolist") else array
    return tuple(map(frozen, values)) if isinstance(values, list) else values


def _entry(side: Side, role: str) -> str:
    """The name of a side's documents among the entries."""
    return f"{side.tensor} {'segments' if side.cumulative else role}"


def _lists(marked: list[tuple[int, ...]], last: int) -> IntArray:
    """Lists of the blocks `marked`, pairs of row and column, of rows 0 to `last`."""
    rows = [sorted(column for row, column in marked if row == i) for i in range(last + 1)]
    lists = np.full((last + 1, 1 + max(map(len, rows))), -1, np.int64)
    for one, columns in zip(lists, rows, strict=True):
        one[: 1 + len(columns)] = len(columns), *columns
    return lists


def _documents(role: str, marked: list[int], length: int) -> IntArray:
    """A tensor of documents: those of one side begin at the indices `marked`, those of two have 1 there and 0 else."""
    cuts = [i for i in marked if 0 < i < length]
    if role == "segments":
        return np.zeros(1, np.int64) if NO_SEGMENT in marked else np.unique([0, *cuts, length])
    if role == "documents":
        return np.cumsum(np.isin(np.arange(length), cuts))
    return np.isin(np.arange(length), marked).astype(np.int64)


@dataclass
class _Tensors:
    """Entries of tensors by name: what guards and numbers ask of them.

    Attributes:
        entries: Index -> value of each tensor; of a list, its tokens; of documents of one side, where a new one begins;
            of a side, the ids that are not 0.
    """

    point: Mapping[str, int]
    abstraction: Abstraction
    entries: dict[str, dict[tuple[int, ...], int]]

    def value(self, expr: Expr) -> int:
        """An expression at the point."""
        known = substitute(expr, self.abstraction.numbers)
        return int(
            evaluate(
                known,
                {"h": 0, "b": 0, "num_heads": 1, "batch_size": 1, "k": 0, **self.point},
                Tensors({}, self.point["kv_len"]),
            )
        )

    def put(self, tensor: str, index: tuple[int, ...], value: int) -> None:
        """Notes an entry; one too far out is left out, and the witness fails its check."""
        if max(index, default=0) < MAX_INDEX:
            self.entries.setdefault(tensor, {})[index] = value

    def add_guard(self, guard: Bool, truth: bool) -> None:
        """Notes what makes a guard true or false."""
        match guard:
            case Member(position, tokens, _):
                for name in tokens.tensors:
                    self.entries.setdefault(f"{name} tokens", {})
                    if truth:
                        self.put(f"{name} tokens", (self.value(position),), 1)
            case InTable(GivenTable(name), row, column):
                self.put(name, (max(self.value(row), 0), max(self.value(column), 0)), int(truth))
            case InTable(ListedTable(name), row, column):
                self.put(f"{name} lists", (max(self.value(row), 0), max(self.value(column), 0)), int(truth))
            case SameSegment(documents, left, right) if documents.two_sided:
                self.put(_entry(documents.queries, "ids"), (max(self.value(left), 0),), 0)
                at = NO_SEGMENT if documents.keys.cumulative else max(self.value(right), 0)
                self.put(_entry(documents.keys, "ids"), (at,), int(not truth))
            case SameSegment(documents, left, right):
                name = _entry(documents.keys, "documents")
                self.entries.setdefault(name, {})
                if not truth:
                    one, other = self.value(left), self.value(right)
                    self.put(name, (NO_SEGMENT if one == other else max(one, other),), 1)

    def add_number(self, number: object, value: int) -> None:
        """Notes an entry that is read."""
        match number:
            case Read(DocumentBound(documents), _):
                if not documents.two_sided:
                    self.put(_entry(documents.keys, "documents"), (value,), 1)
            case Read(str() as tensor, index):
                self.put(tensor, tuple(max(self.value(i), 0) for i in index), value)

    def arrays(self) -> dict[str, IntArray]:
        """The tensors."""
        return dict(self._array(*item) for item in self.entries.items())

    def _array(self, key: str, entries: Mapping[tuple[int, ...], int]) -> tuple[str, IntArray]:
        name, _, role = key.partition(" ")
        if role == "tokens":
            return name, np.asarray(sorted(index[0] for index in entries), np.int64)
        if role == "lists":
            return name, _lists([index for index, value in entries.items() if value], max(entries)[0])
        if role:
            marked = [index[0] for index, value in entries.items() if value]
            return name, _documents(role, marked, self.point["kv_len"])
        array = np.zeros(tuple(max(axis) + 1 for axis in zip(*entries, strict=True)), np.int64)
        for index, value in entries.items():
            array[index] = value
        return name, array
