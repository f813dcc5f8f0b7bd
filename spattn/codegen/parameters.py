"""Run-time tensors that a generated kernel takes besides q, k, v: what each holds, so that a launcher can make it.

Identifiers in generated text are ours (`t0`, `t1`, ..); users' names stand in comments only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import Documents, Expr, ListedTable, Table, Tokens


@frozen
class Values:
    """A tensor by name, with as many dimensions as it is indexed by: `lengths`, a user's own."""

    name: str
    rank: int


@frozen
class Floats:
    """A float tensor that a score reads, by name, with as many dimensions as it is indexed by."""

    name: str
    rank: int


@frozen
class DocumentIds:
    """[n] or [batch, n]: ids of a side's indices, "queries" or "keys".

    Of a plain list the user's tensor; one list has the side "keys" alone. An index outside of all segments has -1 among
    queries and -2 among keys; where one side is segments, so has a negative id of the other.
    """

    documents: Documents
    side: str


@frozen
class DocumentBounds:
    """int32 [n] or [batch, n]: what a `DocumentBound` of the expressions stands for."""

    documents: Documents
    of: str
    seen_from: str
    end: str


@frozen
class TokenList:
    """int32 [batch, n]: positions ascending, repeated and outside ones moved to the end as NOWHERE."""

    tokens: Tokens


@frozen
class Membership:
    """int8 [batch, length]: is the position one of the tokens?"""

    tokens: Tokens
    length: Expr


@frozen
class BlockLists:
    """int32 [batch, heads, row blocks, 1 + width]: how many blocks the table marks, then these, ascending, then -1.

    Those of a table that is given as lists are these themselves.
    """

    table: Table
    size: int
    transposed: bool

    @property
    def given(self) -> bool:
        """Is it the user's own tensor? Then a row may lie outside, and numbers may be wrong."""
        return isinstance(self.table, ListedTable) and not self.transposed

    @property
    def grouped(self) -> bool:
        """May neighbouring heads share a list?"""
        return isinstance(self.table, ListedTable)


@frozen
class GivenTokens:
    """int32 [batch, n]: a list of positions as the user gave it, for those that are counted from a document's end."""

    name: str


Role = Values | Floats | DocumentIds | DocumentBounds | TokenList | Membership | BlockLists | GivenTokens


def dimensions(role: Role) -> int:
    """Dimensions after batch and head."""
    match role:
        case Values(_, rank) | Floats(_, rank):
            return rank
        case BlockLists():
            return 2
    return 1


def numbers(role: Role) -> tuple[str, ...]:
    """What a kernel is told of a tensor besides sizes and strides: the first row of lists, the heads that share one."""
    if not isinstance(role, BlockLists):
        return ()
    return ("first_row", "sharing") if role.grouped else ("first_row",)


def head_index(name: str, role: Role) -> str:
    """The index of head `h` in a tensor."""
    return f"(h // {name}_sharing)" if "sharing" in numbers(role) else "h"


@dataclass
class Parameters:
    """The tensors that a kernel asks for, in order of first use."""

    roles: list[Role] = field(default_factory=list)

    def name(self, role: Role) -> str:
        """The identifier under which the kernel has the tensor."""
        if role not in self.roles:
            self.roles.append(role)
        return f"t{self.roles.index(role)}"
