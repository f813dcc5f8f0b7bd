"""Regular sublattices of positions, and which of them the rows and keys of a set of pairs lie on.

`columns([::512])` lies on keys 512*v: a dense walk of a strided view. `strided(4)` has q = k mod 4: rows and keys are
both tiled by residue, and the pairs become a dense band of a quarter of the length.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from spattn.expressions.algebra import add, floordiv, minimum, mod, scale, sub, substitute
from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import Expr, Int, Sym
from spattn.relation.affine import Sets, isl, isl_text

if TYPE_CHECKING:
    IslMap = Any
    IslSet = Any

MAX_RESIDUES = 1024  # beyond, a residue class has too few rows to fill a tile at any usual length
RESIDUE = Sym("c")


@frozen
class IndexMap:
    """How a coordinate becomes a position."""


@frozen
class Affine(IndexMap):
    """`phase + step * v`; the phase is a constant or a formula in the pass's residue c."""

    step: int = 1
    phase: Expr = Int(0)

    def position(self, v: Expr) -> Expr:
        """Where coordinate v lies."""
        return add(self.phase, scale(v, self.step))

    def coordinate(self, position: Expr) -> Expr:
        """The first coordinate at or after a position."""
        return floordiv(add(sub(position, self.phase), self.step - 1), self.step)


@frozen
class Runs(IndexMap):
    """`period * (v // run) + first + v % run`: a run of positions in each period."""

    period: int
    run: int
    first: int

    def position(self, v: Expr) -> Expr:
        """Where coordinate v lies."""
        return add(scale(floordiv(v, self.run), self.period), self.first, mod(v, self.run))

    def coordinate(self, position: Expr) -> Expr:
        """The first coordinate at or after a position."""
        offset = sub(position, self.first)
        return add(scale(floordiv(offset, self.period), self.run), minimum(mod(offset, self.period), self.run))


CONTIGUOUS = Affine()
Regular = Affine | Runs


@frozen
class Sublattice:
    """Where a set of pairs lies: rows and keys."""

    rows: Regular
    keys: Regular

    @property
    def plain(self) -> bool:
        """Are both sides all positions?"""
        return self.rows == CONTIGUOUS and self.keys == CONTIGUOUS

    @property
    def residues(self) -> int:
        """How many residue classes the rows are tiled by."""
        match self.rows:
            case Affine(step, phase) if phase == RESIDUE:
                return step
        return 1


PLAIN = Sublattice(CONTIGUOUS, CONTIGUOUS)


def split_by_lattice(sets: Sets, pairs: IslMap, residues: bool = True) -> list[tuple[Sublattice, IslMap]]:
    """`pairs` in disjoint parts by sublattice; one part where no disjunct gains. No residues if not wanted."""
    whole = sets.ask("lattice", lambda: sublattice(sets, pairs, residues)) or PLAIN
    if not whole.plain:
        return [(whole, pairs)]
    parts: dict[Sublattice, IslMap] = {}
    for basic in pairs.get_basic_maps():
        part = isl.Map.from_basic_map(basic)
        lattice = sets.ask("lattice", lambda part=part: sublattice(sets, part, residues)) or PLAIN  # type: ignore[misc]
        parts[lattice] = parts[lattice].union(part) if lattice in parts else part
    if len(parts) == 1:
        return [(PLAIN, pairs)]
    disjoint = sets.ask("split", lambda: _made_disjoint(sets, parts))
    return [(PLAIN, pairs)] if disjoint is None else disjoint


def _made_disjoint(sets: Sets, parts: dict[Sublattice, IslMap]) -> list[tuple[Sublattice, IslMap]]:
    result: list[tuple[Sublattice, IslMap]] = []
    done: IslMap | None = None
    for lattice in sorted(parts, key=lambda lattice: not lattice.plain):
        part = sets.explicit(parts[lattice])
        mine = part if done is None else part.subtract(done).coalesce()
        done = part if done is None else done.union(part)
        if not mine.is_empty():
            result.append((lattice, mine.coalesce()))
    return result


def sublattice(sets: Sets, pairs: IslMap, residues: bool) -> Sublattice:
    """The sparsest sublattice that holds `pairs`, as far as strides and runs go."""
    step, factor, offset = _stride(pairs)
    row_step, row_factor, row_offset = _stride(pairs.reverse())
    if row_factor:
        row_step, row_offset = 1, 0
    if step > 1:
        classes = step // math.gcd(factor, step) if factor else 1
        if classes == 1:
            rows = Affine(row_step, Int(row_offset)) if row_step > 1 else CONTIGUOUS
            return Sublattice(rows, Affine(step, Int(offset)))
        if row_step > 1 and row_step % classes == 0:
            return Sublattice(
                Affine(row_step, Int(row_offset)), Affine(step, Int((factor * row_offset + offset) % step))
            )
        if row_step == 1 and residues and classes <= MAX_RESIDUES:
            phase = mod(add(scale(RESIDUE, factor), offset), step)
            return Sublattice(Affine(classes, RESIDUE), Affine(step, RESIDUE if (factor, offset) == (1, 0) else phase))
    keys: Regular = _runs(sets, pairs) or CONTIGUOUS
    if row_step > 1:
        return Sublattice(Affine(row_step, Int(row_offset)), keys)
    return Sublattice(_runs(sets, pairs.reverse()) or CONTIGUOUS, keys)


def _stride(pairs: IslMap) -> tuple[int, int, int]:
    """(s, a, b) with k = a*q + b modulo s for all pairs; s = 1 where there is none or it is another formula."""
    info = pairs.get_range_stride_info(0)
    step = int(info.get_stride().to_python())
    offset = info.get_offset()
    coefficient = offset.get_coefficient_val(isl.dim_type.in_, 0)
    constant = offset.get_constant_val()
    parameters = range(offset.dim(isl.dim_type.param))
    plain = (
        coefficient.is_int()
        and constant.is_int()
        and offset.dim(isl.dim_type.div) == 0
        and all(offset.get_coefficient_val(isl.dim_type.param, i).is_zero() for i in parameters)
    )
    if step <= 1 or not plain:
        return 1, 0, 0
    return step, int(coefficient.to_python()) % step, int(constant.to_python()) % step


def _runs(sets: Sets, pairs: IslMap) -> Runs | None:
    """Keys confined to a short run of each period; periods come from the divisions that isl keeps."""
    best: Runs | None = None
    for period in sorted(_periods(pairs)):
        within = sets.map(f"{{ [k] -> [w] : w = k mod {period} }}")
        offsets = pairs.range().apply(within).coalesce()
        offsets = offsets.project_out(isl.dim_type.param, 0, offsets.dim(isl.dim_type.param))
        if offsets.is_empty():
            continue
        first, last = (int(value.to_python()) for value in (offsets.dim_min_val(0), offsets.dim_max_val(0)))
        run = last - first + 1
        if run <= period // 2 and (best is None or run * best.period < best.run * period):
            best = Runs(period, run, first)
    return best


def _periods(pairs: IslMap) -> set[int]:
    periods = set()
    for basic in pairs.get_basic_maps():
        space = basic.wrap().get_local_space()  # the divisions of a map cannot be read, those of a set can
        for i in range(space.dim(isl.dim_type.div)):
            try:
                periods.add(int(space.get_div(i).get_denominator_val().to_python()))
            except isl.Error:  # a division that isl did not work out
                continue
    return {period for period in periods if period >= 4}


def lattice_map(sets: Sets, side: Regular, variable: str) -> IslMap:
    """{[variable] -> [position]}; the residue c is a parameter."""
    match side:
        case Runs(period, run, first):
            body = f"x = {period}*floor({variable}/{run}) + {first} + ({variable} mod {run})"
            return sets.map(f"{{ [{variable}] -> [x] : {body} }}")
        case Affine(1, Int(0)):
            return sets.map(f"{{ [{variable}] -> [{variable}] }}")
        case Affine(step, phase):
            return sets.map(f"[c] -> {{ [{variable}] -> [x] : x = {step}*{variable} + {isl_text(phase)} }}")
    raise AssertionError


def positions(sets: Sets, side: Regular) -> IslSet:
    """The positions of a side without residues."""
    return lattice_map(sets, side, "v").range()


def in_coordinates(sets: Sets, lattice: Sublattice, pairs: IslMap) -> IslMap:
    """{[q] -> [k]} as {[u] -> [v]}, for each residue c."""
    rows, keys = lattice_map(sets, lattice.rows, "u"), lattice_map(sets, lattice.keys, "v")
    inside = rows.apply_range(pairs).apply_range(keys.reverse()).coalesce()
    inside = inside.set_dim_name(isl.dim_type.in_, 0, "u").set_dim_name(isl.dim_type.out, 0, "v")
    if lattice.residues > 1:
        inside = inside.intersect_params(sets.set(f"[c] -> {{ : 0 <= c < {lattice.residues} }}"))
    return inside


def guaranteed(sets: Sets, lattice: Sublattice) -> IslMap:
    """The pairs {[q] -> [k]} that the index maps visit, whatever their ranges."""
    pairs = sets.map("{ [q] -> [k] }")
    if lattice.residues > 1:
        assert isinstance(lattice.keys, Affine)
        phase = isl_text(substitute(lattice.keys.phase, {RESIDUE: Sym("q")}))
        return pairs.intersect(sets.map(f"{{ [q] -> [k] : (k - ({phase})) mod {lattice.keys.step} = 0 }}"))
    if lattice.rows != CONTIGUOUS:
        pairs = pairs.intersect_domain(positions(sets, lattice.rows))
    if lattice.keys != CONTIGUOUS:
        pairs = pairs.intersect_range(positions(sets, lattice.keys))
    return pairs
