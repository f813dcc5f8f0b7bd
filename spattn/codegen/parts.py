"""What a kernel's template is filled with: each field is one name or one expression of Triton, printed already."""

from __future__ import annotations

from dataclasses import dataclass

from spattn.codegen.boxes import BoxText, Line
from spattn.codegen.environment import code
from spattn.codegen.parameters import Parameters

TENSOR_ARGUMENTS = (
    "q_ptr, stride_qb, stride_qh, stride_qm",
    "k_ptr, stride_kb, stride_kh, stride_kn",
    "v_ptr, stride_vb, stride_vh, stride_vn",
    "out_ptr, stride_ob, stride_oh, stride_om",
    "lse_ptr, part_in_ptr, part_in_lse_ptr, part_out_ptr, part_out_lse_ptr, pairs_ptr, spoiled_ptr",
)
NUMBERS = ("num_q_heads", "group_size", "q_len", "kv_len", "q_offset", "tiles", "programs", "qk_scale")
CONSTANTS = (
    "HEAD_DIM", "V_HEAD_DIM", "BLOCK_D", "BLOCK_DV", "BLOCK_M", "BLOCK_N", "PAIRED", "PRECISION", "CAREFUL",
)  # fmt: skip
SCANNED = 256  # tiles that a program of the careful launch looks through


@dataclass(frozen=True)
class RangeText:
    """One range of a walk; every field is an expression of Triton."""

    number: int
    lo: str
    hi: str
    full_lo: str
    full_hi: str


@dataclass(frozen=True)
class ClampText:
    """Lines that bring a clamp into the bounds: names with their expressions, then the four bounds."""

    lines: tuple[Line, ...]
    lo: str
    hi: str
    full_lo: str
    full_hi: str


@dataclass(frozen=True)
class WalkText:
    """A walk in Triton. `kind` is "ranges", "listed", "blocks" or "box".

    Attributes:
        title: What is walked, in words.
        last: The last coordinate inside the keys.
        row_lo, row_hi: The row's own range, "" where the mask is no interval or that side has no end.
        residual: The mask over q_pos, k_pos, "" where there is none.
        position: Position of coordinate vector `v`; `base`: of scalar `start`; `step`: between neighbours, 0 if uneven.
        needs_k: Does the mask speak of k_pos?
    """

    number: int
    kind: str
    title: str
    ranges: tuple[RangeText, ...] = ()
    ordered: bool = True
    clamps: tuple[ClampText, ...] = ()
    last: str = ""
    row_lo: str = ""
    row_hi: str = ""
    residual: str = ""
    position: str = ""
    base: str = ""
    step: int = 1
    table: str = ""
    size: int = 0
    needs_k: bool = False
    box: BoxText | None = None

    @property
    def unmasked(self) -> bool:
        """Is every pair of a listed block allowed?"""
        return self.kind == "blocks" and not self.residual

    @property
    def has_full(self) -> bool:
        """Can a tile be full?"""
        return any((r.full_lo, r.full_hi) != ("0", "-1") for r in self.ranges)

    @property
    def exchanges(self) -> tuple[tuple[int, int], ...]:
        """Pairs of ranges to bring in order, one after the other, where their order is not proved."""
        count = 0 if self.ordered else len(self.ranges)
        return tuple((i, i + 1) for end in range(count - 1, 0, -1) for i in range(end))


@dataclass(frozen=True)
class KernelText:
    """A pass in Triton.

    Attributes:
        rows: "regular", "blocked", "listed" or "grid".
        grid, grid_ends: Where the rows of a box lie, and its first and last coordinates.
        begin, end: Row coordinates of the residue, half-open; position: of coordinate vector `u`.
        skip: Rows not to store, "" if none; resume: start from the partial result; final: store the result.
        tensors: (identifier, number of dimensions) of each parameter.
        segments: Names of documents tensors whose bounds the tile needs.
    """

    name: str
    title: str
    rows: str
    begin: str
    end: str
    position: str
    residues: int
    block: int
    list: str
    grid: tuple[Line, ...]
    grid_ends: tuple[Line, ...]
    skip: str
    resume: bool
    final: bool
    walks: tuple[WalkText, ...]
    segments: tuple[SegmentText, ...]
    tensors: tuple[TensorText, ...]
    parameters: Parameters

    @property
    def leaky(self) -> bool:
        """Does some key tile hold a key for one row that another row may not see?"""
        return any(walk.row_lo or walk.row_hi or walk.residual for walk in self.walks)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the kernel is launched with, in order, a line a group."""
        lines = [*TENSOR_ARGUMENTS]
        for tensor in self.tensors:
            names = [f"{tensor.name}_ptr", f"{tensor.name}_stride_b", f"{tensor.name}_stride_h"]
            for i in range(tensor.dims):
                names += [f"{tensor.name}_size_{i}", f"{tensor.name}_stride_{i}"]
            lines.append(", ".join([*names, f"{tensor.name}_first_row"] if tensor.is_list else names))
        lines += [", ".join(NUMBERS), ", ".join(CONSTANTS[:4]), ", ".join(CONSTANTS[4:])]
        return tuple(code(f"{line},") for line in lines)

    @property
    def unspecialised(self) -> str:
        """Numbers that change with the lengths: Triton compiles nothing for their values."""
        names = ["num_q_heads", "q_len", "kv_len", "q_offset", "tiles", "programs"]
        for tensor in self.tensors:
            names += [f"{tensor.name}_stride_b", f"{tensor.name}_stride_h"]
            names += [f"{tensor.name}_size_{i}" for i in range(tensor.dims)]
            names += [f"{tensor.name}_first_row"] if tensor.is_list else []
        return code(", ".join(f'"{name}"' for name in names))

    @property
    def signature(self) -> tuple[str, ...]:
        """The same as parameters."""
        constants = (", ".join(f"{name}: tl.constexpr" for name in part) for part in (CONSTANTS[:4], CONSTANTS[4:]))
        return (*self.arguments[:-2], *(code(f"{line},") for line in constants))

    @property
    def variables(self) -> tuple[str, ...]:
        """What the kernel knows of its tile when the walks begin, besides the state of the softmax."""
        names = ["q_pos", "row_ok", "u", "u0", "u1", "c", "b", "h", "q_len", "kv_len", "q_offset"]
        for s in self.segments:
            parts = ("first", "last", "run_first", "run_last", "length", "single")
            names += [f"segment_{s.number}_{part}" for part in parts]
        names += ["q0", "q1"]
        names += [f"{name}_{i}" for i in range(3) for name in ("q", "corner", "far")]
        for tensor in self.tensors:
            names.append(f"{tensor.name}_ptr")
            for i in range(tensor.dims):
                names += [f"{tensor.name}_size_{i}", f"{tensor.name}_stride_{i}"]
            names.append(f"{tensor.name}_first_row")
        return tuple(names)


@dataclass(frozen=True)
class TensorText:
    """A tensor parameter: its identifier, the dimensions that have sizes and strides, and what it is, for a comment."""

    name: str
    dims: int
    is_list: bool


@dataclass(frozen=True)
class SegmentText:
    """The four tensors of a document tensor, and the number that its scalars carry."""

    number: int
    start: str
    stop: str
    run_start: str
    run_stop: str
    framed: bool
