"""Boxes of a grid in Triton: the lines that place a tile's rows and the columns of a box walk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from spattn.codegen.environment import code
from spattn.codegen.sides import Side
from spattn.expressions.algebra import substitute
from spattn.expressions.nodes import Expr, Int, Node
from spattn.layout.ir import Box
from spattn.relation.bounds import BEGIN, LAST

Printer = Callable[[dict[str, str], Expr], str]


@dataclass(frozen=True)
class Line:
    """`name = value`."""

    name: str
    value: str


def line(name: str, value: str) -> Line:
    """A line of generated code."""
    return Line(code(name), code(value))


@dataclass(frozen=True)
class BoxText:
    """The walk over boxes of columns.

    Attributes:
        setup: Each axis' range for this tile, and how many boxes cover it.
        count: Boxes in all.
        places: Coordinates and position of the columns of box `i`.
        inside: Are they in the ranges?
    """

    setup: tuple[Line, ...]
    count: str
    places: tuple[Line, ...]
    inside: str


def sides(prefix: str, block: str, rank: int) -> list[Line]:
    """The sides of a box of `block` tokens, as `spattn.layout.ir.box_sides` has them, when Triton compiles."""
    if rank == 2:
        first = [f"4 if {block} < 64 else 8 if {block} < 256 else 16"]
    else:
        first = [f"2 if {block} < 64 else 4", f"2 if {block} < 32 else 4"]
    taken = " * ".join(f"{prefix}_{i}" for i in range(rank - 1))
    values = [*first, f"{block} // {taken}" if rank == 2 else f"{block} // ({taken})"]
    return [line(f"{prefix}_{i}: tl.constexpr", value) for i, value in enumerate(values)]


def row_lines(shape: tuple[int, ...], side: Side) -> tuple[Line, ...]:
    """Where the rows of box `tile` lie: q_0, q_1, .., q_pos (or k_0, ..), and row_ok on the grid."""
    rank = len(shape)
    lines = sides("side", "BLOCK_M", rank)
    for i, length in list(enumerate(shape))[1:]:
        lines.append(line(f"boxes_{i}: tl.constexpr", f"({length} + side_{i} - 1) // side_{i}"))
    lines.append(line("along", "tl.arange(0, BLOCK_M)"))
    for i in range(rank):
        lines.append(
            line(
                f"{side.row}_{i}",
                f"{_digit('tile', 'boxes', i, rank)} * side_{i} + {_digit('along', 'side', i, rank)}",
            )
        )
    lines.append(line(f"{side.row}_pos", position(side.row, shape)))
    lines.append(line("row_ok", " & ".join(f"({side.row}_{i} < {length})" for i, length in enumerate(shape))))
    return tuple(lines)


def row_ends(shape: tuple[int, ...], side: Side) -> tuple[Line, ...]:
    """First and last coordinate of the tile's rows on each axis."""
    ends = []
    for i in range(len(shape)):
        ends.append(line(f"corner_{i}", f"tl.min(tl.where(row_ok, {side.row}_{i}, NOWHERE), 0)"))
        ends.append(line(f"far_{i}", f"tl.max(tl.where(row_ok, {side.row}_{i}, -NOWHERE), 0)"))
    return tuple(ends)


def box_text(box: Box, printer: Printer, side: Side) -> BoxText:
    """The parts of a walk over the boxes that cover each axis' range."""
    rank = len(box.shape)
    column, block = side.column, side.block
    setup = sides(f"{block}_side", "BLOCK_N", rank)
    for i, (length, r) in enumerate(zip(box.shape, box.ranges, strict=True)):
        names = {"u0": f"corner_{i}", "u1": f"far_{i}"}
        ends: dict[Node, Node] = {BEGIN: Int(0), LAST: Int(length - 1)}
        setup.append(line(f"lo_{i}", f"tl.maximum({printer(names, substitute(r.lo, ends))}, 0)"))
        setup.append(line(f"hi_{i}", f"tl.minimum({printer(names, substitute(r.hi, ends))}, {length - 1})"))
        count = f"tl.maximum(hi_{i} - lo_{i} + {block}_side_{i}, 0) // {block}_side_{i}"
        setup.append(line(f"{block}_boxes_{i}", count))
    places = [line("along", "tl.arange(0, BLOCK_N)")]
    for i in range(rank):
        box_number = _digit("i", f"{block}_boxes", i, rank)
        place = _digit("along", f"{block}_side", i, rank)
        places.append(line(f"{column}_{i}", f"lo_{i} + {box_number} * {block}_side_{i} + {place}"))
    places.append(line(f"{column}_pos", position(column, box.shape)))
    inside = " & ".join([*(f"({column}_{i} <= hi_{i})" for i in range(rank)), f"({side.columns_inside})"])
    count = " * ".join(f"{block}_boxes_{i}" for i in range(rank))
    return BoxText(tuple(setup), code(count), tuple(places), code(inside))


def axis_names(axis: int, side: Side) -> dict[str, str]:
    """How an axis' condition writes its q and k."""
    return {"q": f"{side.row}_{axis}[:, None]", "k": f"{side.column}_{axis}[None, :]"}


def position(prefix: str, shape: tuple[int, ...]) -> str:
    """Row-major position of coordinates prefix_0, prefix_1, .."""
    parts = []
    for i in range(len(shape)):
        inner = prod(shape[i + 1 :])
        parts.append(f"{prefix}_{i} * {inner}" if inner > 1 else f"{prefix}_{i}")
    return " + ".join(parts)


def _digit(number: str, base: str, axis: int, rank: int) -> str:
    """Digit `axis` of a number written with places base_0, base_1, .., the last the fastest."""
    inner = [f"{base}_{i}" for i in range(axis + 1, rank)]
    text = (
        number if not inner else f"{number} // {inner[0]}" if len(inner) == 1 else f"{number} // ({' * '.join(inner)})"
    )
    return text if axis == 0 else f"{text} % {base}_{axis}"
