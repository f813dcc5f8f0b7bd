"""The nodes of a pattern as written. Frozen; where a node stood takes no part in equality.

`str(node)` prints the language: parsing it again gives an equal node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from spattn.errors import Span


@dataclass(frozen=True)
class Syntax:
    """Anything written in a pattern."""

    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    def __str__(self) -> str:
        from spattn.frontend.printing import text

        return text(self)


@dataclass(frozen=True)
class Integer(Syntax):
    """`128`, `-1`."""

    value: int


@dataclass(frozen=True)
class Infinity(Syntax):
    """`inf`."""


@dataclass(frozen=True)
class Flag(Syntax):
    """`true`, `false`."""

    value: bool


@dataclass(frozen=True)
class Name(Syntax):
    """A name: bound to an integer when compiling, or left free and given as a tensor at each call."""

    name: str


@dataclass(frozen=True)
class Slice(Syntax):
    """`start:stop:step`, Python's; None where nothing is written."""

    start: Integer | Name | None
    stop: Integer | Name | None
    step: Integer | Name | None


@dataclass(frozen=True)
class IndexSet(Syntax):
    """`[0, 7, -1, 10:20, ::512, cls]`."""

    items: tuple[Integer | Name | Slice, ...]


@dataclass(frozen=True)
class Operation(Syntax):
    """Arithmetic inside `where(..)`: `operator` is `+ - * // % neg abs min max < <= > >= == != and or not`."""

    operator: str
    args: tuple[Value, ...]


@dataclass(frozen=True)
class Lookup(Syntax):
    """`tensor[index, ..]` inside `where(..)`."""

    tensor: Name
    index: tuple[Value, ...]


@dataclass(frozen=True)
class Segments(Syntax):
    """`segments(cu)`: documents as cumulative lengths, where a list of ids may stand."""

    tensor: Name


@dataclass(frozen=True)
class Argument(Syntax):
    """One argument of an atom under its parameter's name, whether it was written with a keyword or not."""

    parameter: str
    value: Value


@dataclass(frozen=True)
class Node(Syntax):
    """A set of allowed pairs (b, h, q, k)."""


@dataclass(frozen=True)
class Atom(Node):
    """`name(arguments)`: a row of the table of atoms, or a word of the prelude."""

    name: str
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True)
class Complement(Node):
    """`~operand`."""

    operand: Node


@dataclass(frozen=True)
class Difference(Node):
    """`left - right`."""

    left: Node
    right: Node


@dataclass(frozen=True)
class Intersection(Node):
    """`a & b & ..`."""

    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Union(Node):
    """`a | b | ..`."""

    operands: tuple[Node, ...]


Value = Integer | Infinity | Flag | Name | IndexSet | Operation | Lookup | Segments | Node
