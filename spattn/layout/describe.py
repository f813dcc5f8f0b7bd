"""A layout in words: for `emit --stage layout`, `explain` and the head of generated source."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spattn.expressions.algebra import substitute
from spattn.expressions.nodes import FALSE, TRUE, Bool, Node, Sym
from spattn.expressions.text import table_text, text, tokens_text
from spattn.layout.ir import Blocks, Box, Clamp, FrameClamp, Grid, Layout, LimitClamp, Listed, Pass, SegmentClamp, Walk
from spattn.layout.planner import swapped
from spattn.relation.bounds import EMPTY_FULL, Range
from spattn.relation.lattice import Affine, IndexMap, Runs

SYMBOLS: Mapping[str, str] = MappingProxyType({})
"""Coordinates of rows u, u0 .. u1 of a tile, and of columns v, as the layout's formulas write them."""


def describe(layout: Layout, names: Mapping[str, str] = SYMBOLS) -> list[str]:
    """The layout, a line a pass, walk and range; `names` are other ones for coordinates."""
    lines = []
    for i, one in enumerate(layout.passes):
        lines.append(f"pass {i}: {pass_title(one, layout.direction, names)}")
        for walk in one.walks:
            lines.append(f"  walk {walk_title(walk, layout.direction, names)}")
            lines += [f"    {line}" for line in walk_lines(walk, layout.direction, names)]
    return lines


def pass_title(one: Pass, direction: str = "queries", names: Mapping[str, str] = SYMBOLS) -> str:
    """Which rows a pass has, and what it does with their results."""
    rows = positions_text(one.rows, "q" if direction == "queries" else "k", names.get("u", "u"))
    parts = [f"{direction} {rows}" if rows else f"all {direction}"]
    if one.residues > 1:
        parts.append(f"for each residue c of {one.residues}")
    if one.block > 1:
        parts.append(f"in blocks of {one.block}")
    if one.owns:
        parts.append("which it owns")
    if one.skip != FALSE:
        parts.append(f"less rows where {_spoken(one.skip, direction)}")
    return ", ".join(parts)


def walk_title(walk: Walk, direction: str = "queries", names: Mapping[str, str] = SYMBOLS) -> str:
    """Which columns a walk visits."""
    kind, position = ("keys", "k") if direction == "queries" else ("queries", "q")
    coordinate = names.get("v", "v")
    return f"{kind} {positions_text(walk.keys, position, coordinate) or f'{position} = {coordinate}'}"


def walk_lines(walk: Walk, direction: str = "queries", names: Mapping[str, str] = SYMBOLS) -> list[str]:
    """Ranges, clamps and mask of a walk."""
    lines = [range_text(r, names) for r in walk.ranges]
    if isinstance(walk.keys, Box):
        for i, (axis, r) in enumerate(zip(walk.keys.axes, walk.keys.ranges, strict=True)):
            lines.append(f"axis {i}: {range_text(r, names)}, masked by {_spoken(axis, direction)}")
    if not walk.ordered:
        lines.append("ranges brought in order by each tile")
    lines += [f"clamped to {clamp_text(clamp, direction, names)}" for clamp in walk.clamps]
    if walk.interval:
        lines.append("partial tiles masked by the row's own range")
    if walk.residual != TRUE:
        lines.append(f"partial tiles masked by {_spoken(walk.residual, direction)}")
    return lines


def _spoken(condition: Bool, direction: str) -> str:
    """A condition over rows and columns as one over queries and keys."""
    return text(condition if direction == "queries" else swapped(condition))


def range_text(r: Range, names: Mapping[str, str] = SYMBOLS) -> str:
    """`[lo .. hi], full [lo .. hi]`."""
    called: dict[Node, Node] = {Sym(name): Sym(other) for name, other in names.items()}
    lo, hi, full_lo, full_hi = (text(substitute(end, called)) for end in (r.lo, r.hi, r.full_lo, r.full_hi))
    if (r.full_lo, r.full_hi) == EMPTY_FULL:
        return f"[{lo} .. {hi}], none full"
    return f"[{lo} .. {hi}], full [{full_lo} .. {full_hi}]"


def clamp_text(clamp: Clamp, direction: str = "queries", names: Mapping[str, str] = SYMBOLS) -> str:
    """What a clamp leaves."""
    match clamp:
        case SegmentClamp(documents):
            return f"the documents {documents} of the tile's rows"
        case FrameClamp(documents, _, r):
            return f"{range_text(r, names)} from the document's start in {documents}"
        case LimitClamp(last):
            return f"{'k' if direction == 'queries' else 'q'} <= {text(last)}"


def positions_text(side: IndexMap, position: str, coordinate: str) -> str:
    """An index map as a formula; nothing for all positions."""
    match side:
        case Affine(1, phase) if text(phase) == "0":
            return ""
        case Affine(step, phase):
            shift = "" if text(phase) == "0" else f" + {text(phase)}"
            return f"{position} = {step}*{coordinate}{shift}"
        case Runs(period, run, first):
            return f"{position} = {period}*({coordinate} // {run}) + {first} + {coordinate} % {run}"
        case Listed(tokens):
            return f"{position} in {tokens_text(tokens)}"
        case Grid(shape):
            return f"on the grid {shape_text(shape)}, in boxes"
        case Box(shape, _, _):
            return f"in a box of the grid {shape_text(shape)}"
        case Blocks(table, size, transposed):
            how = " transposed" if transposed else ""
            return f"in the blocks of {size} that {table_text(table)}{how} lists"
    raise AssertionError(side)


def shape_text(shape: tuple[int, ...]) -> str:
    """`128 x 128`."""
    return " x ".join(map(str, shape))
