"""What the rows and the columns of a pass are: names in generated text, and lengths.

Bounds and masks are written over rows `q` and columns `k`. In a layout of direction "queries" these are queries and
keys; in one of direction "keys", for dK and dV, they are keys and queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spattn.codegen.environment import code
from spattn.expressions.algebra import add
from spattn.expressions.nodes import Expr, Node, Sym
from spattn.layout.ir import COLUMN_BEGIN, COLUMN_END, ROW_BEGIN, ROW_END

Ends = tuple[Expr, Expr]
QUERIES: Ends = (Sym("q_offset"), add(Sym("q_offset"), Sym("q_len")))
KEYS: Ends = (Sym("k_offset"), add(Sym("k_offset"), Sym("num_keys")))


@dataclass(frozen=True)
class Orientation:
    """Of one direction; every text is Triton.

    Attributes:
        row, column: Begin the names of what belongs to rows and to columns: `q_pos`, `k_pos`.
        block: Begins the names of a column block's parts.
        row_ends, column_ends: Positions, half-open.
        rows_inside: Is the row, of a list or a grid, one of the call's?
        column_first: The call's first column.
        column_stop: One past the call's last column.
    """

    row: str
    column: str
    block: str
    row_ends: Ends
    column_ends: Ends
    rows_inside: str
    column_first: str
    column_stop: str

    @property
    def columns_inside(self) -> str:
        """Is the column one of the call's?"""
        return ORIENTATIONS[{"q": "keys", "k": "queries"}[self.row]].rows_inside

    @property
    def pair(self) -> dict[str, str]:
        """How a mask writes its q and k."""
        return {"q": f"{self.row}_pos[:, None]", "k": f"{self.column}_pos[None, :]"}

    @property
    def lengths(self) -> Mapping[Node, Node]:
        """Ends of rows and columns, as a launch has them."""
        names = ROW_BEGIN, ROW_END, COLUMN_BEGIN, COLUMN_END
        return dict(zip(names, (*self.row_ends, *self.column_ends), strict=True))


ORIENTATIONS = {
    "queries": Orientation(
        row=code("q"),
        column=code("k"),
        block=code("key"),
        row_ends=QUERIES,
        column_ends=KEYS,
        rows_inside=code("below(q_pos - q_offset, q_len)"),
        column_first=code("k_offset"),
        column_stop=code("k_offset + num_keys"),
    ),
    "keys": Orientation(
        row=code("k"),
        column=code("q"),
        block=code("query"),
        row_ends=KEYS,
        column_ends=QUERIES,
        rows_inside=code("below(k_pos - k_offset, num_keys)"),
        column_first=code("q_offset"),
        column_stop=code("q_offset + q_len"),
    ),
}
