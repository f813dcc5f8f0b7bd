"""A pass as the parts of its kernel: each bound, mask and position printed, nothing left for the template to compute.

The template decides which loops exist; what is here is one name or one expression each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from spattn.codegen.boxes import Line, axis_names, box_text, row_digits, row_ends, row_lines
from spattn.codegen.environment import code, comment
from spattn.codegen.kernel_specs import DECODE, FORWARD, KernelSpec, numbers_of
from spattn.codegen.model import ClampText, KernelText, LoopText, RangeText, SegmentText, TensorText, WalkText
from spattn.codegen.parameters import BlockLists, DocumentBounds, Parameters, TokenList, dimensions, head_index
from spattn.codegen.score_text import score_text
from spattn.codegen.triton_text import TritonText
from spattn.expressions.algebra import add, maximum, minimum, sub, subexpressions, substitute
from spattn.expressions.nodes import FALSE, TRUE, Bool, Documents, Expr, Int, Node, SameSegment, Sym, Truth
from spattn.expressions.width import KNOWN, Width
from spattn.layout.describe import pass_title, walk_title
from spattn.layout.full_tiles import certain
from spattn.layout.ir import (
    COLUMN_BEGIN,
    COLUMN_END,
    ROW_BEGIN,
    ROW_END,
    Blocks,
    Box,
    Clamp,
    FrameClamp,
    Grid,
    Layout,
    LimitClamp,
    Listed,
    Pass,
    SegmentClamp,
    Walk,
)
from spattn.relation.bounds import BEGIN, LAST, Range
from spattn.relation.lattice import CONTIGUOUS, Affine, Regular, Runs
from spattn.scores.nodes import Score

NO_RUNS: Mapping[Documents, int] = MappingProxyType({})
MAX_TITLE = 100  # of a line that is indented, quoted and ended
COORDINATES = {"u": "offs_m", "u0": "first_m", "u1": "last_m", "v": "offs_n", "start": "load_n"}
"""Rows and columns of a tile as kernels name them."""
ROW = {"u0": "offs_m", "u1": "offs_m"}


def operand(text: str) -> str:
    """An expression as what stands before a dot."""
    return text if text.isidentifier() else code(f"({text})")


def kernel_text(
    layout: Layout,
    index: int,
    kind: KernelSpec = FORWARD,
    reversed_heads: bool = False,
    score: Score | None = None,
    parameters: Parameters | None = None,
) -> KernelText:
    """The text parts of pass `index` of a layout, of the kind's direction; passes may share `parameters`."""
    assert layout.direction == kind.direction
    one = layout.passes[index]
    return _Printer(one, kind, parameters or Parameters(), score).kernel(
        name=f"{kind.prefix}_{index}",
        resume=one.epilogue.accumulates,
        final=one.epilogue.stores_output,
        reversed_heads=reversed_heads,
        numbers=tuple(map(code, numbers_of(layout.condition))),
    )


def tensor_texts(parameters: Parameters) -> tuple[TensorText, ...]:
    """The tensors that a kernel asks for."""
    named = ((f"t{i}", role) for i, role in enumerate(parameters.roles))
    return tuple(TensorText(code(name), dimensions(role), code(head_index(name, role))) for name, role in named)


@dataclass
class _Printer:
    one: Pass
    kind: KernelSpec
    parameters: Parameters
    score: Score | None
    width: Width = field(default_factory=Width)

    def kernel(
        self, name: str, resume: bool, final: bool, reversed_heads: bool, numbers: tuple[str, ...]
    ) -> KernelText:
        one, side = self.one, self.kind.side
        clamps = (c for w in one.walks for c in w.clamps if isinstance(c, SegmentClamp | FrameClamp))
        segments = {c.documents: None for c in clamps}
        self.segment_numbers = {documents: i for i, documents in enumerate(segments)}
        self.width = self.measured(self.one.rows)
        begin = end = position = coordinate = listed = ""
        shape: tuple[int, ...] = ()
        match one.rows:
            case Listed(tokens):
                rows, listed = "listed", self.parameters.name(TokenList(tokens))
            case Grid(shape):
                rows = "grid"
            case Affine() | Runs() as regular:
                rows = "blocked" if one.block > 1 else "regular"
                begin = self.scalar(regular.coordinate(ROW_BEGIN))
                end = self.scalar(regular.coordinate(ROW_END))
                position = self.text({"v": "offs_m"}, regular.position(Sym("v")))
                coordinate = self.text({"v": f"{side.row}_pos"}, regular.coordinate(Sym("v")))
        skip = "" if one.skip == FALSE else self.text({"q": f"{side.row}_pos"}, one.skip)
        loops = self.loops(one.walks)
        title = pass_title(one, self.kind.direction, COORDINATES)
        if len(title) > MAX_TITLE:
            title = (
                pass_title(replace(one, skip=FALSE), self.kind.direction, COORDINATES)
                + ", less those of earlier passes"
            )
        seen = tuple(self.segment(documents) for documents in segments)
        return KernelText(
            name=code(name),
            title=comment(title[:1].upper() + title[1:] + "."),
            kind=self.kind,
            rows=rows,
            begin=begin,
            end=end,
            position=position,
            coordinate=coordinate,
            residues=one.residues,
            block=one.block,
            list=code(listed),
            grid=self.grid(shape) if shape else (),
            grid_ends=row_ends(shape, side),
            skip=skip,
            resume=resume,
            final=final,
            reversed_heads=reversed_heads,
            numbers=numbers,
            loops=loops,
            segments=seen,
            tensors=tensor_texts(self.parameters),
            parameters=self.parameters,
        )

    def grid(self, shape: tuple[int, ...]) -> tuple[Line, ...]:
        """Where the rows of a grid lie: a box of them, or those of positions that are known."""
        return row_digits(shape, self.kind.side) if self.kind == DECODE else row_lines(shape, self.kind.side)

    def text(self, names: dict[str, str], node: Node) -> str:
        return code(TritonText(COORDINATES | names, self.parameters, self.width).of(node))

    def mask(self, residual: Bool, runs: Mapping[Documents, int] = NO_RUNS) -> str:
        """A condition on the rows and the columns of a tile."""
        printer = TritonText(self.kind.side.pair, self.parameters, self.width, runs, self.frames)
        return code(printer.of(residual))

    @property
    def frames(self) -> dict[Documents, int]:
        """Documents of two sides in which the tile counts its rows."""
        clamps = (clamp for walk in self.one.walks for clamp in walk.clamps)
        framed = (clamp.documents for clamp in clamps if isinstance(clamp, FrameClamp))
        return {documents: self.segment_numbers[documents] for documents in framed if documents.two_sided}

    def measured(self, columns: object) -> Width:
        """How great a residue may be, and coordinates of rows and of what the pass walks over."""
        known = dict(KNOWN)
        for keys, names in ((self.one.rows, ("u", "u0", "u1")), (columns, ("v", "start", "last"))):
            if isinstance(keys, Affine | Runs):
                known |= dict.fromkeys(names, Width().extent(keys.coordinate(Sym("q"))))
        return Width(known | {"c": (0, max(self.one.residues - 1, 0))})

    def scalar(self, expr: Expr) -> str:
        return self.text({}, substitute(expr, self.kind.side.lengths))

    def axes(self, box: Box) -> list[str]:
        """Each axis' condition."""
        conditions = enumerate(box.axes)
        return [self.text(axis_names(i, self.kind.side), axis) for i, axis in conditions if axis != TRUE]

    def segment(self, documents: Documents) -> SegmentText:
        rows, columns = ("queries", "keys") if self.kind.side.row == "q" else ("keys", "queries")
        framed = any(isinstance(c, FrameClamp) and c.documents == documents for w in self.one.walks for c in w.clamps)
        own = framed and documents.two_sided
        shift = " - q_offset" if documents.two_sided and rows == "queries" else ""
        return SegmentText(
            number=self.segment_numbers[documents],
            index=code(f"{self.kind.side.row}_pos{shift}"),
            start=self.bounds(documents, columns, rows, "start"),
            stop=self.bounds(documents, columns, rows, "stop"),
            run_start=self.bounds(documents, columns, rows, "run_start"),
            run_stop=self.bounds(documents, columns, rows, "run_stop"),
            own_start=self.bounds(documents, rows, rows, "start") if own and rows == "keys" else code(""),
            own_stop=self.bounds(documents, rows, rows, "stop") if own else code(""),
            framed=framed,
            plain=documents.plain,
            two_sided=documents.two_sided,
        )

    def bounds(self, documents: Documents, of: str, seen_from: str, end: str) -> str:
        """The tensor of an end of documents."""
        sides = (of, seen_from) if documents.two_sided else ("keys", "keys")
        return code(self.parameters.name(DocumentBounds(documents, *sides, end)))

    def loops(self, walks: tuple[Walk, ...]) -> tuple[LoopText, ...]:
        """Neighbours whose keys have steps share a loop."""
        loops: list[LoopText] = []
        score = None
        if self.score is not None:
            heads = "q_heads[:, None]" if self.kind == DECODE else "h"
            score = score_text(self.score, self.kind.side, self.parameters, "product", heads)
        for walk in walks:
            shared = self.kind.fused and loops and isinstance(walk.keys, Affine) and loops[-1].walks[0].shares
            before = loops[-1].walks if shared else ()
            boxes = sum(bool(other.walks[0].box) for other in loops)
            text = self.walk(walk, len(before), sum(len(other.ranges) for other in before), boxes)
            loops = [*loops[: len(loops) - bool(before)], LoopText((*before, text), score, self.kind.fused)]
        return tuple(loops)

    def walk(self, walk: Walk, place: int, first: int, boxes: int) -> WalkText:
        """The walk at a place of its loop, where `first` ranges stand before it, and so many box walks in the pass."""
        side = self.kind.side
        self.width = self.measured(walk.keys)
        residual = "" if walk.residual == TRUE else self.mask(walk.residual)
        title = comment(walk_title(walk, self.kind.direction, COORDINATES))
        match walk.keys:
            case Listed(tokens):
                table = code(self.parameters.name(TokenList(tokens)))
                return WalkText("listed", title, residual=residual, table=table, step=0, needs_column=True)
            case Box() as box:
                text = box_text(box, boxes, self.text, side)
                pairs = [text.mask] if text.mask else self.axes(box)
                masks = [f"({mask})" for mask in (*pairs, residual) if mask]
                return WalkText("box", title, residual=code(" & ".join(masks)), step=0, needs_column=True, box=text)
            case Blocks(table, size, transposed):
                role = BlockLists(table, size, transposed)
                name = code(self.parameters.name(role))
                return WalkText(
                    "blocks",
                    title,
                    residual=residual,
                    partial=self.partial(walk.residual),
                    table=name,
                    size=size,
                    step=1,
                    base=code("load_n"),
                    needs_column=True,
                    given=role.given,
                )
            case Affine() | Runs() as keys:
                return self.range_walk(code(f"_{place}" if place else ""), first, walk, keys, residual, title)
        raise AssertionError(walk.keys)

    def partial(self, residual: Bool) -> str:
        """When a tile of a block's columns is masked, "" if always; rows must be neighbours, since their ends speak."""
        whole = certain(residual) if self.one.rows == Affine(1, Int(0)) else Truth(residual == TRUE)
        if whole == FALSE:
            return ""
        ends = {"k0": "start_n", "k1": "(start_n + BLOCK_N - 1)"}
        uncertain = "" if whole == TRUE else f" | ~({self.text(ends, whole)})"
        early = f"(start_n < {self.kind.side.column_first})"
        return code(f"{early} | (start_n + BLOCK_N > block_end){uncertain}")

    def range_walk(self, tag: str, first: int, walk: Walk, keys: Regular, residual: str, title: str) -> WalkText:
        lengths = self.kind.side.lengths
        begin = substitute(keys.coordinate(COLUMN_BEGIN), lengths)
        last = substitute(sub(keys.coordinate(COLUMN_END), 1), lengths)
        inside = Sym(f"last{tag}")
        ends: dict[Node, Node] = {BEGIN: begin, LAST: inside}
        row_lo, row_hi = self.own_range(walk, ends, inside)
        runs = self.runs(walk.residual)
        in_runs = ""
        if runs and isinstance(walk.residual, SameSegment) and walk.interval and keys == CONTIGUOUS:
            own = row_lo or self.text({}, begin), row_hi or f"last{tag}"
            row_lo, row_hi = _within_run(runs[walk.residual.documents], *own)
        elif runs:
            in_runs = self.mask(walk.residual, runs)
        start = keys.position(Sym("start"))
        return WalkText(
            "ranges",
            title,
            tag=tag,
            ranges=tuple(self.range_text(first + i, r, inside, ends) for i, r in enumerate(walk.ranges)),
            ordered=walk.ordered,
            clamps=tuple(self.clamp(f"{tag}_{i}", clamp, keys) for i, clamp in enumerate(walk.clamps)),
            last=self.text({}, last),
            row_lo=row_lo,
            row_hi=row_hi,
            residual=residual,
            whole=code(" & ".join(f"segment_{number}_whole" for number in runs.values())),
            in_runs=code(in_runs),
            position=self.text({}, keys.position(Sym("v"))),
            base=operand(self.text({}, start)),
            step=keys.step if isinstance(keys, Affine) else 0,
            needs_column=f"{self.kind.side.column}_pos" in residual,
        )

    def own_range(self, walk: Walk, ends: dict[Node, Node], inside: Sym) -> tuple[str, str]:
        """The ends of each row's range, where it is the mask; "" for an end of the columns."""
        if not walk.interval:
            return "", ""
        (r,) = walk.ranges
        lo = "" if r.lo == BEGIN else self.text(ROW, substitute(r.lo, ends))
        return lo, "" if r.hi == LAST else self.text(ROW, minimum(substitute(r.hi, ends), inside))

    def runs(self, residual: Bool) -> dict[Documents, int]:
        """The documents that a mask speaks of, where the tile knows where each row's run of them ends."""
        spoken = {part.documents for part in subexpressions(residual) if isinstance(part, SameSegment)}
        return {one: self.segment_numbers[one] for one in sorted(spoken, key=str) if one in self.segment_numbers}

    def range_text(self, number: int, r: Range, inside: Sym, ends: dict[Node, Node]) -> RangeText:
        lo = maximum(substitute(r.lo, ends), substitute(BEGIN, ends))
        hi = minimum(substitute(r.hi, ends), inside)
        full_lo, full_hi = (substitute(end, ends) for end in (r.full_lo, r.full_hi))
        return RangeText(number, *(self.text({}, end) for end in (lo, hi, full_lo, full_hi)))

    def clamp(self, number: str, clamp: Clamp, keys: Regular) -> ClampText:
        def first(position: str) -> str:
            return self.text({}, keys.coordinate(Sym(position)))

        def final(position: str) -> str:
            return self.text({}, sub(keys.coordinate(add(Sym(position), 1)), 1))

        match clamp:
            case LimitClamp(last):
                name = f"limit{number}"
                hi = final(name)
                limit = code(f"narrowed({self.scalar(last)})")
                return ClampText((Line(code(name), limit),), code(""), hi, code(""), hi)
            case SegmentClamp(documents):
                s = f"segment_{self.segment_numbers[documents]}"
                bounds = first(f"{s}_first"), final(f"{s}_last"), first(f"{s}_run_first"), final(f"{s}_run_last")
                return ClampText((), *bounds)
            case FrameClamp(documents, _, r):
                s = f"segment_{self.segment_numbers[documents]}"
                return self.frame(number, s, r, first, final, two_sided=documents.two_sided)
        raise AssertionError(clamp)

    def frame(self, number: str, s: str, r: Range, first: object, final: object, *, two_sided: bool) -> ClampText:
        """A range counted from the document's start, where all rows are in one; else the whole document."""
        row = self.kind.side.row
        rows_from, columns_from = (f"{s}_row", f"{s}_column") if two_sided else (f"{s}_first", f"{s}_first")
        names = {
            "u0": f"({row}0 - {rows_from})",
            "u1": f"({row}1 - {rows_from})",
            "kv_len": f"{s}_length",
            "begin": f"{s}_begin",
            "last": f"({s}_length - 1)",
        }
        lines = []
        for end, whole in (("lo", f"{s}_first"), ("hi", f"{s}_last"), ("full_lo", "0"), ("full_hi", "-1")):
            inner = substitute(getattr(r, end), {} if two_sided else {BEGIN: Int(0)})
            value = f"tl.where({s}_single, {columns_from} + {TritonText(names, self.parameters).of(inner)}, {whole})"
            lines.append(Line(code(f"frame{number}_{end}"), code(value)))
        bounds = (first(f"frame{number}_lo"), final(f"frame{number}_hi"))  # type: ignore[operator]
        fulls = (first(f"frame{number}_full_lo"), final(f"frame{number}_full_hi"))  # type: ignore[operator]
        return ClampText(tuple(lines), *bounds, *fulls)


def _within_run(segment: int, lo: str, hi: str) -> tuple[str, str]:
    """A row's range, cut to the row's document where that lies in one piece."""
    name = f"segment_{segment}"
    start, stop = f"{name}_run_start", f"{name}_run_start + {name}_run_count - 1"
    cut = f"tl.maximum({lo}, {start})", f"tl.minimum({hi}, {stop})"
    return code(f"tl.where({name}_whole, {cut[0]}, {lo})"), code(f"tl.where({name}_whole, {cut[1]}, {hi})")
