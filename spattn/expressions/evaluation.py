"""Expressions to NumPy arrays by broadcasting: the meaning of a pattern at whatever queries and keys are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from spattn.expressions.algebra import relative_inner
from spattn.expressions.nodes import (
    And,
    BitTable,
    Bool,
    DocumentBound,
    Documents,
    Eq,
    Expr,
    FloorDiv,
    GivenTable,
    Int,
    InTable,
    Le,
    Length,
    ListedTable,
    Max,
    Member,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    RandomTable,
    Read,
    Relative,
    SameSegment,
    Select,
    Sum,
    Sym,
    Tokens,
    Truth,
)

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Env = Mapping[str, Any]
"""Arrays or ints by symbol; all broadcast against one another."""


class Reads(Protocol):
    """What the expressions read besides symbols. `env` gives `b` and `h` where a tensor has such dimensions."""

    def read(self, tensor: str | DocumentBound, index: tuple[IntArray, ...], env: Env) -> IntArray:
        """Entries of a tensor or of the ends of documents, each index clipped into it."""

    def length(self, tensor: str) -> int:
        """How many entries the last dimension has."""

    def has_bit(self, tensor: str, row: IntArray, column: IntArray, env: Env) -> BoolArray:
        """Has the entry `row` the bit `column`? Outside the tensor none has."""

    def has_token(self, tensor: str, position: IntArray, length: IntArray, env: Env) -> BoolArray:
        """Is `position` among the tensor's tokens, negative ones counted from `length`?"""

    def in_given(self, tensor: str, row: IntArray, column: IntArray, env: Env) -> BoolArray:
        """Is the block marked? Outside the table nothing is."""

    def in_listed(self, tensor: str, row: IntArray, column: IntArray, env: Env) -> BoolArray:
        """Is the block in the list of its row?"""

    def in_random(self, table: RandomTable, key_blocks: int, row: IntArray, column: IntArray, env: Env) -> BoolArray:
        """Is block `column` among those drawn for block `row`?"""

    def same_segment(self, documents: Documents, left: IntArray, right: IntArray, env: Env) -> BoolArray:
        """Are a query's index and a key's of one document?"""


@overload
def evaluate(node: Expr, env: Env, reads: Reads) -> IntArray: ...
@overload
def evaluate(node: Bool, env: Env, reads: Reads) -> BoolArray: ...
def evaluate(node: Expr | Bool, env: Env, reads: Reads) -> IntArray | BoolArray:
    """`node` at the symbols' values in `env`; what the symbols do not spread stays 0-dimensional."""
    return _boolean(node, env, reads) if isinstance(node, Bool) else _integer(node, env, reads)


def _integer(node: Expr, env: Env, reads: Reads) -> IntArray:
    def value(part: Expr) -> IntArray:
        return _integer(part, env, reads)

    match node:
        case Int(constant):
            return np.asarray(constant, np.int64)
        case Sym(name):
            return np.asarray(env[name], np.int64)
        case Sum(terms, constant):
            return np.asarray(sum((c * value(term) for term, c in terms), np.int64(constant)))
        case Mul(left, right):
            return np.asarray(value(left) * value(right))
        case FloorDiv(dividend, divisor):
            return np.asarray(value(dividend) // value(divisor))
        case Mod(dividend, divisor):
            return np.asarray(value(dividend) % value(divisor))
        case Min(args):
            return np.asarray(reduce(np.minimum, map(value, args)))
        case Max(args):
            return np.asarray(reduce(np.maximum, map(value, args)))
        case Select(condition, then, otherwise):
            return np.where(_boolean(condition, env, reads), value(then), value(otherwise))
        case Read(tensor, index):
            return reads.read(tensor, tuple(map(value, index)), env)
        case Length(tensor):
            return np.asarray(reads.length(tensor), np.int64)
    raise AssertionError(f"no value for {node!r}")


def _boolean(node: Bool, env: Env, reads: Reads) -> BoolArray:
    def value(part: Expr) -> IntArray:
        return _integer(part, env, reads)

    match node:
        case Truth(constant):
            return np.asarray(constant)
        case Le(left, right):
            return np.asarray(value(left) <= value(right))
        case Eq(left, right):
            return np.asarray(value(left) == value(right))
        case And(args):
            return np.asarray(reduce(np.logical_and, (_boolean(arg, env, reads) for arg in args)))
        case Or(args):
            return np.asarray(reduce(np.logical_or, (_boolean(arg, env, reads) for arg in args)))
        case Not(arg):
            return np.asarray(~_boolean(arg, env, reads))
        case Member(position, tokens, length):
            return _member(value(position), tokens, value(length), env, reads)
        case InTable(GivenTable(tensor), row, column):
            return reads.in_given(tensor, value(row), value(column), env)
        case InTable(ListedTable(tensor), row, column):
            return reads.in_listed(tensor, value(row), value(column), env)
        case InTable(BitTable(tensor), row, column):
            return reads.has_bit(tensor, value(row), value(column), env)
        case InTable(RandomTable() as table, row, column):
            return reads.in_random(table, int(value(table.key_blocks)), value(row), value(column), env)
        case SameSegment(documents, left, right):
            return reads.same_segment(documents, value(left), value(right), env)
        case Relative():
            return _boolean(relative_inner(node), env, reads)
    raise AssertionError(f"no truth for {node!r}")


def _member(position: IntArray, tokens: Tokens, length: IntArray, env: Env, reads: Reads) -> BoolArray:
    """Membership; negative tokens count from `length`, so they are looked for in `position - length`."""
    from_start = np.isin(position, [token for token in tokens.values if token >= 0])
    from_end = np.isin(position - length, [token for token in tokens.values if token < 0])
    given = [reads.has_token(tensor, position, length, env) for tensor in tokens.tensors]
    inside = (position >= 0) & (position < length)
    return np.asarray(inside & reduce(np.logical_or, given, from_start | from_end))
