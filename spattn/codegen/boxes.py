"""Boxes of a grid in Triton: the lines that place a tile's rows and the columns of a box walk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from spattn.codegen.environment import code
from spattn.codegen.orientation import Orientation
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
        box: The walk's.
        mask: Where the axes' ranges are exact, the pairs in them; else "", and the axes' conditions say it.
        sides: Constants that the kernel is launched with, the box's side on each axis.
        setup: Each axis' range for this tile, and how many boxes cover it.
        count: Boxes in all.
        places: Coordinates and positions of the columns of box `i`, and which are `inside` the ranges.
    """

    box: Box
    mask: str
    sides: tuple[str, ...]
    setup: tuple[Line, ...]
    count: str
    places: tuple[Line, ...]


def row_sides(rank: int) -> list[Line]:
    """The sides of a box of rows, as `spattn.layout.ir.box_sides` has them, when Triton compiles."""
    if rank == 2:
        first = ["4 if BLOCK_M < 64 else 8 if BLOCK_M < 256 else 16"]
    else:
        first = ["2 if BLOCK_M < 64 else 4", "2 if BLOCK_M < 32 else 4"]
    taken = " * ".join(f"side_{i}" for i in range(rank - 1))
    values = [*first, f"BLOCK_M // {taken}" if rank == 2 else f"BLOCK_M // ({taken})"]
    return [line(f"side_{i}: tl.constexpr", value) for i, value in enumerate(values)]


def row_lines(shape: tuple[int, ...], side: Orientation) -> tuple[Line, ...]:
    """Where the rows of box `tile` lie: q_0, q_1, .., q_pos (or k_0, ..), and row_ok on the grid."""
    rank = len(shape)
    lines = row_sides(rank)
    for i, length in list(enumerate(shape))[1:]:
        lines.append(line(f"boxes_{i}: tl.constexpr", f"({length} + side_{i} - 1) // side_{i}"))
    lines.append(line("along", "tl.arange(0, BLOCK_M)"))
    boxes, own = ([f"{name}_{i}" for i in range(rank)] for name in ("boxes", "side"))
    for i in range(rank):
        lines.append(
            line(
                f"{side.row}_{i}",
                f"{_digit('tile', boxes, i)} * side_{i} + {_digit('along', own, i)}",
            )
        )
    lines.append(line(f"{side.row}_pos", position(side.row, shape)))
    lines.append(line("row_ok", " & ".join(f"({side.row}_{i} < {length})" for i, length in enumerate(shape))))
    return tuple(lines)


def row_digits(shape: tuple[int, ...], side: Orientation) -> tuple[Line, ...]:
    """Where the rows lie whose positions are known: q_0, q_1, .. (or k_0, ..)."""
    lines = []
    for i, length in enumerate(shape):
        inner = prod(shape[i + 1 :])
        whole = f"{side.row}_pos // {inner}" if inner > 1 else f"{side.row}_pos"
        lines.append(line(f"{side.row}_{i}", f"{whole} % {length}" if i else whole))
    lines.append(line("row_ok", f"row_ok & ({side.row}_pos >= 0) & ({side.row}_pos < {prod(shape)})"))
    return tuple(lines)


def row_ends(shape: tuple[int, ...], side: Orientation) -> tuple[Line, ...]:
    """First and last coordinate of the tile's rows on each axis."""
    ends = []
    for i in range(len(shape)):
        ends.append(line(f"corner_{i}", f"tl.min(tl.where(row_ok, {side.row}_{i}, NOWHERE), 0)"))
        ends.append(line(f"far_{i}", f"tl.max(tl.where(row_ok, {side.row}_{i}, -NOWHERE), 0)"))
    return tuple(ends)


def box_text(box: Box, number: int, printer: Printer, side: Orientation) -> BoxText:
    """The parts of a walk, the `number`-th of a pass' box walks, over the boxes that cover each axis' range."""
    rank = len(box.shape)
    column, block = side.column, side.block
    sides = tuple(code(f"{block}_side{number or ''}_{i}") for i in range(rank))
    setup = []
    for i, (length, r) in enumerate(zip(box.shape, box.ranges, strict=True)):
        names = {"u0": f"corner_{i}", "u1": f"far_{i}"}
        ends: dict[Node, Node] = {BEGIN: Int(0), LAST: Int(length - 1)}
        setup.append(line(f"lo_{i}", f"tl.maximum({printer(names, substitute(r.lo, ends))}, 0)"))
        setup.append(line(f"hi_{i}", f"tl.minimum({printer(names, substitute(r.hi, ends))}, {length - 1})"))
        count = f"tl.maximum(hi_{i} - lo_{i} + {sides[i]}, 0) // {sides[i]}"
        setup.append(line(f"{block}_boxes_{i}", count))
    exact = all(r.exact for r in box.ranges)
    if exact:
        setup += [one for i in range(rank) for one in _row_range(box, i, printer, side)]
    places = [line("along", "tl.arange(0, BLOCK_N)")]
    for i in range(rank):
        box_number = _digit("i", [f"{block}_boxes_{j}" for j in range(rank)], i)
        place = _digit("along", sides, i)
        places.append(line(f"{column}_{i}", f"lo_{i} + {box_number} * {sides[i]} + {place}"))
    places.append(line(f"{column}_pos", position(column, box.shape)))
    within = f"(along < {' * '.join(sides)})"
    if exact:
        # what lies beyond a row's range is loaded for nothing: to test it costs more
        places.append(line("inside", side.columns_inside))
        places.append(line(f"{column}_0", f"tl.where(inside & {within}, {column}_0, NOWHERE)"))
    else:
        touched = " & ".join(f"({column}_{i} <= hi_{i})" for i in range(rank))
        places.append(line("inside", f"{within} & {touched} & ({side.columns_inside})"))
    in_range = "below({0}_{1}[None, :] - row_lo_{1}[:, None], row_count_{1}[:, None])"
    mask = " & ".join(in_range.format(column, i) for i in range(rank))
    count = " * ".join(f"{block}_boxes_{i}" for i in range(rank))
    return BoxText(box, code(mask) if exact else "", sides, tuple(setup), code(count), tuple(places))


def _row_range(box: Box, axis: int, printer: Printer, side: Orientation) -> list[Line]:
    """Where each row's own range on an axis begins, and how long it is."""
    length, r = box.shape[axis], box.ranges[axis]
    names = {"u0": f"{side.row}_{axis}", "u1": f"{side.row}_{axis}"}
    lo, hi = (printer(names, substitute(end, {BEGIN: Int(0), LAST: Int(length - 1)})) for end in (r.lo, r.hi))
    low = line(f"row_lo_{axis}", f"tl.maximum({lo}, 0)")
    return [low, line(f"row_count_{axis}", f"tl.maximum(tl.minimum({hi}, {length - 1}) - row_lo_{axis} + 1, 0)")]


def axis_names(axis: int, side: Orientation) -> dict[str, str]:
    """How an axis' condition writes its q and k."""
    return {"q": f"{side.row}_{axis}[:, None]", "k": f"{side.column}_{axis}[None, :]"}


def position(prefix: str, shape: tuple[int, ...]) -> str:
    """Row-major position of coordinates prefix_0, prefix_1, .."""
    parts = []
    for i in range(len(shape)):
        inner = prod(shape[i + 1 :])
        parts.append(f"{prefix}_{i} * {inner}" if inner > 1 else f"{prefix}_{i}")
    return " + ".join(parts)


def _digit(number: str, bases: Sequence[str], axis: int) -> str:
    """Digit `axis` of a number written with places in these bases, the last the fastest."""
    inner = bases[axis + 1 :]
    divisor = inner[0] if len(inner) == 1 else f"({' * '.join(inner)})"
    text = f"{number} // {divisor}" if inner else number
    return text if axis == 0 else f"{text} % {bases[axis]}"
