"""A pass as the parts of its kernel: each bound, mask and position printed, nothing left for the template to compute.

The template decides which loops exist; what is here is one name or one expression each.
"""

from __future__ import annotations

from dataclasses import dataclass

from spattn.codegen.boxes import Line, axis_names, box_text, row_ends, row_lines
from spattn.codegen.environment import code, comment
from spattn.codegen.parameters import BlockLists, Parameters, TokenList, Values, dimensions
from spattn.codegen.parts import ClampText, KernelText, RangeText, SegmentText, TensorText, WalkText
from spattn.codegen.triton_text import TritonText
from spattn.expressions.algebra import add, maximum, minimum, sub, substitute
from spattn.expressions.nodes import FALSE, TRUE, Expr, Int, Node, Sym
from spattn.layout.describe import pass_title, walk_title
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
from spattn.relation.lattice import Affine, Regular, Runs

LENGTHS: dict[Node, Node] = {
    ROW_BEGIN: Sym("q_offset"),
    ROW_END: add(Sym("q_offset"), Sym("q_len")),
    COLUMN_BEGIN: Int(0),
    COLUMN_END: Sym("kv_len"),
}
PAIR = {"q": "q_pos[:, None]", "k": "k_pos[None, :]"}
ROW = {"u0": "u", "u1": "u"}


def operand(text: str) -> str:
    """An expression as what stands before a dot."""
    return text if text.isidentifier() else code(f"({text})")


def kernel_text(layout: Layout, index: int) -> KernelText:
    """The text parts of pass `index` of a layout of direction "queries"."""
    one = layout.passes[index]
    shared = [i for i, other in enumerate(layout.passes) if not other.owns]
    return _Printer(one, Parameters()).kernel(
        name=f"pass_{index}",
        resume=not one.owns and index != shared[0],
        final=one.owns or index == shared[-1],
    )


@dataclass
class _Printer:
    one: Pass
    parameters: Parameters

    def kernel(self, name: str, resume: bool, final: bool) -> KernelText:
        one = self.one
        segments = {c.ids: None for w in one.walks for c in w.clamps if isinstance(c, SegmentClamp | FrameClamp)}
        self.segment_numbers = {ids: i for i, ids in enumerate(segments)}
        begin = end = position = listed = ""
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
                position = self.text({"v": "u"}, regular.position(Sym("v")))
        skip = "" if one.skip == FALSE else self.text({"q": "q_pos"}, one.skip)
        walks = tuple(self.walk(i, walk) for i, walk in enumerate(one.walks))
        seen = tuple(self.segment(ids) for ids in segments)
        return KernelText(
            name=code(name),
            title=comment(pass_title(one)[:1].upper() + pass_title(one)[1:] + "."),
            rows=rows,
            begin=begin,
            end=end,
            position=position,
            residues=one.residues,
            block=one.block,
            list=code(listed),
            grid=row_lines(shape) if shape else (),
            grid_ends=row_ends(shape),
            skip=skip,
            resume=resume,
            final=final,
            walks=walks,
            segments=seen,
            tensors=tuple(
                TensorText(code(f"t{i}"), dimensions(role), isinstance(role, BlockLists))
                for i, role in enumerate(self.parameters.roles)
            ),
            parameters=self.parameters,
        )

    def text(self, names: dict[str, str], node: object) -> str:
        return code(TritonText(names, self.parameters).of(node))  # type: ignore[arg-type]

    def scalar(self, expr: Expr) -> str:
        return self.text({}, substitute(expr, LENGTHS))

    def segment(self, ids: str) -> SegmentText:
        names = (self.parameters.name(Values(f"{ids}.{n}", 1)) for n in ("start", "stop", "run_start", "run_stop"))
        framed = any(isinstance(c, FrameClamp) and c.ids == ids for w in self.one.walks for c in w.clamps)
        start, stop, run_start, run_stop = map(code, names)
        return SegmentText(self.segment_numbers[ids], start, stop, run_start, run_stop, framed)

    def walk(self, number: int, walk: Walk) -> WalkText:
        residual = "" if walk.residual == TRUE else self.text(PAIR, walk.residual)
        title = comment(walk_title(walk))
        needs_k = "k_pos" in residual
        match walk.keys:
            case Listed(tokens):
                table = code(self.parameters.name(TokenList(tokens)))
                return WalkText(number, "listed", title, residual=residual, table=table, step=0, needs_k=True)
            case Box() as box:
                axes = [self.text(axis_names(i), axis) for i, axis in enumerate(box.axes) if axis != TRUE]
                masks = [f"({mask})" for mask in (*axes, residual) if mask]
                text = box_text(box, self.text)
                return WalkText(number, "box", title, residual=code(" & ".join(masks)), step=0, needs_k=True, box=text)
            case Blocks(table, size, transposed):
                name = code(self.parameters.name(BlockLists(table, size, transposed)))
                return WalkText(
                    number,
                    "blocks",
                    title,
                    residual=residual,
                    table=name,
                    size=size,
                    step=1,
                    base=code("start"),
                    needs_k=True,
                )
            case Affine() | Runs() as keys:
                return self.range_walk(number, walk, keys, residual, title, needs_k)
        raise AssertionError(walk.keys)

    def range_walk(self, number: int, walk: Walk, keys: Regular, residual: str, title: str, needs_k: bool) -> WalkText:
        begin = substitute(keys.coordinate(COLUMN_BEGIN), LENGTHS)
        last = substitute(sub(keys.coordinate(COLUMN_END), 1), LENGTHS)
        ends: dict[Node, Node] = {BEGIN: begin, LAST: Sym("last")}
        row_lo = row_hi = ""
        if walk.interval:
            (r,) = walk.ranges
            row_lo = "" if r.lo == BEGIN else self.text(ROW, substitute(r.lo, ends))
            row_hi = "" if r.hi == LAST else self.text(ROW, minimum(substitute(r.hi, ends), Sym("last")))
        start = keys.position(Sym("start"))
        return WalkText(
            number,
            "ranges",
            title,
            ranges=tuple(self.range_text(i, r, ends) for i, r in enumerate(walk.ranges)),
            ordered=walk.ordered,
            clamps=tuple(self.clamp(i, clamp, keys) for i, clamp in enumerate(walk.clamps)),
            last=self.text({}, last),
            row_lo=row_lo,
            row_hi=row_hi,
            residual=residual,
            position=self.text({}, keys.position(Sym("v"))),
            base=operand(self.text({}, start)),
            step=keys.step if isinstance(keys, Affine) else 0,
            needs_k=needs_k,
        )

    def range_text(self, number: int, r: Range, ends: dict[Node, Node]) -> RangeText:
        lo = maximum(substitute(r.lo, ends), substitute(BEGIN, ends))
        hi = minimum(substitute(r.hi, ends), Sym("last"))
        full_lo, full_hi = (substitute(end, ends) for end in (r.full_lo, r.full_hi))
        return RangeText(number, *(self.text({}, end) for end in (lo, hi, full_lo, full_hi)))

    def clamp(self, number: int, clamp: Clamp, keys: Regular) -> ClampText:
        def first(position: str) -> str:
            return self.text({}, keys.coordinate(Sym(position)))

        def final(position: str) -> str:
            return self.text({}, sub(keys.coordinate(add(Sym(position), 1)), 1))

        match clamp:
            case LimitClamp(last):
                name = f"limit_{number}"
                hi = final(name)
                return ClampText((Line(code(name), self.scalar(last)),), code(""), hi, code(""), hi)
            case SegmentClamp(ids):
                s = f"segment_{self.segment_numbers[ids]}"
                bounds = first(f"{s}_first"), final(f"{s}_last"), first(f"{s}_run_first"), final(f"{s}_run_last")
                return ClampText((), *bounds)
            case FrameClamp(ids, r):
                return self.frame(number, f"segment_{self.segment_numbers[ids]}", r, first, final)
        raise AssertionError(clamp)

    def frame(self, number: int, s: str, r: Range, first: object, final: object) -> ClampText:
        """A range counted from the document's start, where all rows are in one; else the whole document."""
        names = {
            "u0": f"(q0 - {s}_first)",
            "u1": f"(q1 - {s}_first)",
            "kv_len": f"{s}_length",
            "last": f"({s}_length - 1)",
        }
        lines = []
        for end, whole in (("lo", f"{s}_first"), ("hi", f"{s}_last"), ("full_lo", "0"), ("full_hi", "-1")):
            inner = substitute(getattr(r, end), {BEGIN: Int(0)})
            value = f"tl.where({s}_single, {s}_first + {TritonText(names, self.parameters).of(inner)}, {whole})"
            lines.append(Line(code(f"frame_{number}_{end}"), code(value)))
        bounds = (first(f"frame_{number}_lo"), final(f"frame_{number}_hi"))  # type: ignore[operator]
        fulls = (first(f"frame_{number}_full_lo"), final(f"frame_{number}_full_hi"))  # type: ignore[operator]
        return ClampText(tuple(lines), *bounds, *fulls)
