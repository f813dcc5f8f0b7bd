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
    """A named integer: `q`, `k`, `h`, `b` (a pair), `u0`, `u1`, `c` (a tile), `kv_len`, `q_offset` (a launch)."""

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
class Side:
    """One side's documents: a tensor with an id for each index, or cumulative lengths.

    Attributes:
        by_rows: Queries as given, index q - q_offset; else positions.
    """

    tensor: str
    cumulative: bool = False
    by_rows: bool = False

    def __str__(self) -> str:
        return f"segments({self.tensor})" if self.cumulative else self.tensor


@frozen
class Documents:
    """What says which document a query and a key are of. On one side both are positions, and the sides are equal."""

    queries: Side
    keys: Side

    @property
    def two_sided(self) -> bool:
        """Have queries a list of their own, counted by rows?"""
        return self.queries.by_rows

    @property
    def cumulative(self) -> bool:
        """Is a side written as cumulative lengths? Then an index may be in no document."""
        return self.queries.cumulative or self.keys.cumulative

    @property
    def plain(self) -> bool:
        """Is it one list of ids, so that each position is of its own document?"""
        return not self.two_sided and not self.cumulative

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that are read."""
        return tuple(dict.fromkeys((self.queries.tensor, self.keys.tensor)))

    def side(self, name: str) -> Side:
        """The side "queries" or "keys"."""
        return self.queries if name == "queries" else self.keys

    def __str__(self) -> str:
        return f"{self.queries}, {self.keys}" if self.two_sided else str(self.keys)


@frozen
class DocumentBound:
    """An array over the indices of side `seen_from`: an end of the index's document on side `of`.

    Attributes:
        end: "start" or "stop", the first index of the document and the one past its last; "run_start", "run_stop": of
            the neighbours of one document around the index, on two sides of the whole document where its indices are
            neighbours, else nothing. An index without document on side `of` has 0 for each.
    """

    documents: Documents
    of: str
    seen_from: str
    end: str

    def __str__(self) -> str:
        if not self.documents.two_sided:
            return f"{self.documents}.{self.end}"
        return f"({self.documents}).{self.of}.{self.end}"


@frozen
class Read(Expr):
    """`tensor[index]`, each index clipped into the tensor; dimensions before the indexed ones are batch, then head."""

    tensor: str | DocumentBound
    index: tuple[Expr, ...]


@frozen
class Length(Expr):
    """How many entries the last dimension of a tensor has."""

    tensor: str


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
class ListedTable:
    """An integer tensor `[.., query blocks, 1 + n]` of lists: how many blocks a query block has, then these, ascending.

    One list serves all query blocks, and none before the first; outside of several nothing is allowed. A dimension of
    heads may have one for each group of neighbours.
    """

    tensor: str


@frozen
class BitTable:
    """An integer tensor `[.., rows]`: bit j of entry i marks column j of row i; outside it nothing is allowed."""

    tensor: str


Table = RandomTable | GivenTable | ListedTable | BitTable
MAX_BITS = 63
"""Columns of a table of bits: those of 64 bits less the sign."""


@frozen
class InTable(Bool):
    """Block `column` is marked for block `row` in the table (of this batch entry and head)."""

    table: Table
    row: Expr
    column: Expr


@frozen
class SameSegment(Bool):
    """Index `left` of the queries' side and index `right` of the keys' lie inside of these and are of one document."""

    documents: Documents
    left: Expr
    right: Expr


@frozen
class Relative(Bool):
    """`inner` with `q`, `k` counted from the start of a document and `kv_len` the number of its keys.

    On two sides a query is counted from the end of its document's keys, as in a call.

    Attributes:
        rows: "queries", or "keys" where `q` and `k` are exchanged; on one side always "queries".
    """

    documents: Documents
    inner: Bool
    rows: str = "queries"


Node = Expr | Bool
Q, K, H, B, KV_LEN, Q_OFFSET = Sym("q"), Sym("k"), Sym("h"), Sym("b"), Sym("kv_len"), Sym("q_offset")
TRUE, FALSE = Truth(True), Truth(False)
