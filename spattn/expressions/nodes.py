"""Integer and Boolean expressions: what bounds, masks and the meanings of patterns are made of.

`//` and `%` are Python's: they round towards minus infinity. Every node is frozen and hashable, `==` is structural;
comparisons are built by `le`, `lt`, `eq` of `spattn.expressions.algebra`, which also keeps sums canonical.
"""

from __future__ import annotations

from spattn.expressions.frozen import frozen


@frozen
class Expr:
    """An integer."""


@frozen
class Int(Expr):
    """A constant."""

    value: int


@frozen
class Sym(Expr):
    """A named integer: `q`, `k`, `h`, `b` (a pair), `u0`, `u1`, `c` (a tile), `kv_len` (a launch)."""

    name: str


@frozen
class Sum(Expr):
    """`constant + sum(coefficient * term)`: terms are no Sum and no Int, coefficients not 0, order canonical."""

    terms: tuple[tuple[Expr, int], ...]
    constant: int


@frozen
class Mul(Expr):
    """`left * right`, neither constant."""

    left: Expr
    right: Expr


@frozen
class FloorDiv(Expr):
    """`floor(dividend / divisor)`."""

    dividend: Expr
    divisor: Expr


@frozen
class Mod(Expr):
    """`dividend - divisor * floor(dividend / divisor)`."""

    dividend: Expr
    divisor: Expr


@frozen
class Min(Expr):
    """The least of `args`."""

    args: tuple[Expr, ...]


@frozen
class Max(Expr):
    """The greatest of `args`."""

    args: tuple[Expr, ...]


@frozen
class Select(Expr):
    """`then if condition else otherwise`."""

    condition: Bool
    then: Expr
    otherwise: Expr


@frozen
class Read(Expr):
    """`tensor[index]`, each index clipped into the tensor; dimensions before the indexed ones are batch, then head."""

    tensor: str
    index: tuple[Expr, ...]


@frozen
class Bool:
    """A truth value."""


@frozen
class Truth(Bool):
    """A constant."""

    value: bool


@frozen
class Le(Bool):
    """`left <= right`."""

    left: Expr
    right: Expr


@frozen
class Eq(Bool):
    """`left = right`."""

    left: Expr
    right: Expr


@frozen
class And(Bool):
    """All of `args`."""

    args: tuple[Bool, ...]


@frozen
class Or(Bool):
    """Any of `args`."""

    args: tuple[Bool, ...]


@frozen
class Not(Bool):
    """Not `arg`."""

    arg: Bool


@frozen
class Tokens:
    """Positions: constants, negative ones counted from the end, and tensors of positions given at each call."""

    values: tuple[int, ...]
    tensors: tuple[str, ...] = ()


@frozen
class Member(Bool):
    """`position` is one of `tokens`; a token outside `0 .. length-1` selects nothing."""

    position: Expr
    tokens: Tokens
    length: Expr


@frozen
class RandomTable:
    """`count` distinct blocks of `key_blocks`, drawn for each query block by Philox keyed with `seed` (see `philox`).

    `past` draws from the blocks up to the query block itself; where fewer than `count` exist, all are taken.
    """

    count: int
    seed: int
    past: bool
    key_blocks: Expr


@frozen
class GivenTable:
    """A Boolean tensor `[.., query blocks, key blocks]`; outside it nothing is allowed."""

    tensor: str


@frozen
class InTable(Bool):
    """Block `column` is marked for block `row` in the table (of this batch entry and head)."""

    table: RandomTable | GivenTable
    row: Expr
    column: Expr


@frozen
class SameSegment(Bool):
    """Positions `left` and `right` lie in `0 .. length-1` and in one document of tensor `ids`."""

    ids: str
    left: Expr
    right: Expr


@frozen
class Relative(Bool):
    """`inner` with `q`, `k` counted from the start of q's document and `kv_len` that document's length."""

    ids: str
    inner: Bool


Node = Expr | Bool
Q, K, H, B, KV_LEN = Sym("q"), Sym("k"), Sym("h"), Sym("b"), Sym("kv_len")
TRUE, FALSE = Truth(True), Truth(False)
