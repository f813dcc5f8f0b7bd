"""Integer and Boolean expressions: what bounds, masks and the meanings of patterns are made of.

`//` and `%` are Python's: they round towards minus infinity. Every node is frozen and hashable, `==` is structural;
comparisons are built by `le`, `lt`, `eq` of `spattn.expressions.algebra`, which also keeps sums canonical.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Expr:
    """An integer."""


@dataclass(frozen=True)
class Int(Expr):
    """A constant."""

    value: int


@dataclass(frozen=True)
class Sym(Expr):
    """A named integer: `q`, `k`, `h`, `b` (a pair), `u0`, `u1`, `c` (a tile), `kv_len` (a launch)."""

    name: str


@dataclass(frozen=True)
class Sum(Expr):
    """`constant + sum(coefficient * term)`: terms are no Sum and no Int, coefficients not 0, order canonical."""

    terms: tuple[tuple[Expr, int], ...]
    constant: int


@dataclass(frozen=True)
class Mul(Expr):
    """`left * right`, neither constant."""

    left: Expr
    right: Expr


@dataclass(frozen=True)
class FloorDiv(Expr):
    """`floor(dividend / divisor)`."""

    dividend: Expr
    divisor: Expr


@dataclass(frozen=True)
class Mod(Expr):
    """`dividend - divisor * floor(dividend / divisor)`."""

    dividend: Expr
    divisor: Expr


@dataclass(frozen=True)
class Min(Expr):
    """The least of `args`."""

    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Max(Expr):
    """The greatest of `args`."""

    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Select(Expr):
    """`then if condition else otherwise`."""

    condition: Bool
    then: Expr
    otherwise: Expr


@dataclass(frozen=True)
class Read(Expr):
    """`tensor[index]`, each index clipped into the tensor; dimensions before the indexed ones are batch, then head."""

    tensor: str
    index: tuple[Expr, ...]


@dataclass(frozen=True)
class Bool:
    """A truth value."""


@dataclass(frozen=True)
class Truth(Bool):
    """A constant."""

    value: bool


@dataclass(frozen=True)
class Le(Bool):
    """`left <= right`."""

    left: Expr
    right: Expr


@dataclass(frozen=True)
class Eq(Bool):
    """`left = right`."""

    left: Expr
    right: Expr


@dataclass(frozen=True)
class And(Bool):
    """All of `args`."""

    args: tuple[Bool, ...]


@dataclass(frozen=True)
class Or(Bool):
    """Any of `args`."""

    args: tuple[Bool, ...]


@dataclass(frozen=True)
class Not(Bool):
    """Not `arg`."""

    arg: Bool


@dataclass(frozen=True)
class Tokens:
    """Positions: constants, negative ones counted from the end, and tensors of positions given at each call."""

    values: tuple[int, ...]
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Member(Bool):
    """`position` is one of `tokens`; a token outside `0 .. length-1` selects nothing."""

    position: Expr
    tokens: Tokens
    length: Expr


@dataclass(frozen=True)
class RandomTable:
    """`count` distinct blocks of `key_blocks`, drawn for each query block by Philox keyed with `seed` (see `philox`).

    `past` draws from the blocks up to the query block itself; where fewer than `count` exist, all are taken.
    """

    count: int
    seed: int
    past: bool
    key_blocks: Expr


@dataclass(frozen=True)
class GivenTable:
    """A Boolean tensor `[.., query blocks, key blocks]`; outside it nothing is allowed."""

    tensor: str


@dataclass(frozen=True)
class InTable(Bool):
    """Block `column` is marked for block `row` in the table (of this batch entry and head)."""

    table: RandomTable | GivenTable
    row: Expr
    column: Expr


@dataclass(frozen=True)
class SameSegment(Bool):
    """Positions `left` and `right` lie in `0 .. length-1` and in one document of tensor `ids`."""

    ids: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Relative(Bool):
    """`inner` with `q`, `k` counted from the start of q's document and `kv_len` that document's length."""

    ids: str
    inner: Bool


Node = Expr | Bool
Q, K, H, B, KV_LEN = Sym("q"), Sym("k"), Sym("h"), Sym("b"), Sym("kv_len")
TRUE, FALSE = Truth(True), Truth(False)
