"""What a kernel's template is filled with: each field is one name or one expression of Triton, printed already."""

from __future__ import annotations

from dataclasses import dataclass

from spattn.codegen.boxes import BoxText, Line
from spattn.codegen.environment import code
from spattn.codegen.kernel_specs import KernelSpec
from spattn.codegen.orientation import Orientation
from spattn.codegen.parameters import Parameters
from spattn.codegen.score_text import ScoreText
from spattn.codegen.signature import Signature, repairable, signature_of

SCANNED = 64  # tiles that a program of a launch that repairs looks through
ROW_STATS = 4  # numbers that dq leaves of each row, two of them unused: the 16 bytes that a thread loads at a time
COMBINED = 16  # dimensions of a tile of rows that a program has which combines its splits


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
        tag: Ends the walk's names where it shares a loop with an earlier walk.
        last: The last coordinate inside the keys.
        row_lo, row_hi: The row's own range, "" where the mask is no interval or that side has no end.
        residual: The mask over q_pos, k_pos, "" where there is none.
        whole: When each document of the rows lies in one piece, "" where the residual speaks of none.
        in_runs: The residual then; "" if the row's own range holds it.
        partial: When a tile of a listed block is masked, "" if always.
        position: Position of coordinate vector `offs_n`; `base`: of scalar `load_n`.
        step: Between neighbours, 0 if uneven.
        needs_column: Does the mask speak of the columns' positions?
        given: Are its lists the user's own, with whatever numbers?
    """

    kind: str
    title: str
    tag: str = ""
    ranges: tuple[RangeText, ...] = ()
    ordered: bool = True
    clamps: tuple[ClampText, ...] = ()
    last: str = ""
    row_lo: str = ""
    row_hi: str = ""
    residual: str = ""
    whole: str = ""
    in_runs: str = ""
    partial: str = ""
    position: str = ""
    base: str = ""
    step: int = 1
    table: str = ""
    size: int = 0
    needs_column: bool = False
    given: bool = False
    box: BoxText | None = None

    @property
    def masks(self) -> tuple[str, ...]:
        """Conditions that a pair of a partial tile meets, besides that its key is inside, and of documents."""
        own = code("below(offs_n[None, :] - row_from[:, None], row_count[:, None])") if self.bounded else ""
        return tuple(mask for mask in (own, "" if self.whole else self.residual) if mask)

    @property
    def bounded(self) -> bool:
        """Has a row a range of its own?"""
        return bool(self.row_lo or self.row_hi)

    @property
    def masked(self) -> bool:
        """Does a partial tile hold pairs that are not allowed, though their column is inside?"""
        return bool(self.masks or self.whole)

    @property
    def closed(self) -> bool:
        """Does the first of its masks hold for no column that is not inside?"""
        return self.bounded or self.box is not None and bool(self.box.mask)

    @property
    def shares(self) -> bool:
        """May others join its loop?"""
        return self.kind == "ranges" and self.step > 0

    @property
    def first(self) -> int:
        """The number of its first range."""
        return self.ranges[0].number

    @property
    def has_full(self) -> bool:
        """Can a tile be full?"""
        return any((r.full_lo, r.full_hi) != ("0", "-1") for r in self.ranges)

    @property
    def exchanges(self) -> tuple[tuple[int, int], ...]:
        """Pairs of ranges to bring in order, one after the other, where their order is not proved."""
        count = 0 if self.ordered else len(self.ranges)
        return tuple((self.first + i, self.first + i + 1) for end in range(count - 1, 0, -1) for i in range(end))


@dataclass(frozen=True)
class LoopText:
    """Walks that share a loop: their tiles are one sequence, so that loads of the next walk start while one ends.

    Attributes:
        walks: These.
        score: What becomes of scores.
        peels: May partial tiles have a loop of their own?
    """

    walks: tuple[WalkText, ...]
    score: ScoreText | None = None
    peels: bool = True

    @property
    def kind(self) -> str:
        """Of its walks, which are alike."""
        return self.walks[0].kind

    @property
    def fused(self) -> bool:
        """Are there several?"""
        return len(self.walks) > 1

    @property
    def masked_alike(self) -> bool:
        """Do several walks mask by nothing but their rows' ranges, so that one mask serves all?"""
        return self.fused and all(walk.closed and len(walk.masks) == 1 and not walk.whole for walk in self.walks)

    @property
    def reads(self) -> bool:
        """Does a mask read tensors?"""
        return any("_ptr" in walk.residual for walk in self.walks)

    @property
    def ranges(self) -> tuple[RangeText, ...]:
        """Of all its walks."""
        return tuple(r for walk in self.walks for r in walk.ranges)

    @property
    def has_full(self) -> bool:
        """Can a tile be full?"""
        return any(walk.has_full for walk in self.walks)

    @property
    def partial(self) -> str:
        """When a tile is masked, "" if always."""
        if self.kind != "ranges":
            return self.walks[0].partial
        tag = "" if len(self.ranges) > 1 else "_0"
        return code(f"(start_n < full_lo{tag}) | (start_n > full_hi{tag})") if self.has_full else ""

    @property
    def movable(self) -> bool:
        """May a tile start earlier than it is due, so that it has columns only?"""
        return self.kind == "blocks" or self.kind == "ranges" and self.walks[0].step > 0

    @property
    def bases(self) -> int:
        """How many ways there are to find the position of a tile's first column."""
        return len({walk.base for walk in self.walks})

    @property
    def step(self) -> int:
        """Between neighbouring columns of all its walks, 0 if these differ."""
        steps = {walk.step for walk in self.walks}
        return steps.pop() if len(steps) == 1 else 0

    @property
    def contiguous(self) -> bool:
        """Are its columns neighbours, whose coordinates are their positions?"""
        return self.step == 1 and all(walk.base == "load_n" for walk in self.walks)

    @property
    def peelable(self) -> bool:
        """Can its partial tiles be peeled off the full ones, because they are the first and the last ones?"""
        if not self.peels:
            return False
        if self.kind == "ranges":
            return self.has_full and len(self.ranges) == 1
        one = self.walks[0]
        return self.kind == "blocks" and bool(self.partial) and not one.masked and not one.given

    @property
    def title(self) -> str:
        """What is walked, in words."""
        return code(", then ".join(walk.title for walk in self.walks))


@dataclass(frozen=True)
class KernelText:
    """A pass in Triton.

    Attributes:
        kind: What the kernel computes.
        rows: "regular", "blocked", "listed" or "grid".
        grid, grid_ends: Where the rows of a box lie, and its first and last coordinates.
        begin, end: Row coordinates of the residue, half-open; position: of coordinate vector `offs_m`; coordinate: of
            position vector `q_pos`, rounded up where none has that position.
        skip: Rows not to store, "" if none; resume: start from the partial result; final: store the result.
        reversed_heads: Do batch entries and heads come in falling order? Every second launch has them so: the one
            before left the last ones in the cache.
        numbers: Names of what it is told of the launch.
        tensors: (identifier, number of dimensions) of each parameter.
        segments: Names of documents tensors whose bounds the tile needs.
    """

    name: str
    title: str
    kind: KernelSpec
    rows: str
    begin: str
    end: str
    position: str
    coordinate: str
    residues: int
    block: int
    list: str
    grid: tuple[Line, ...]
    grid_ends: tuple[Line, ...]
    skip: str
    resume: bool
    final: bool
    reversed_heads: bool
    numbers: tuple[str, ...]
    loops: tuple[LoopText, ...]
    segments: tuple[SegmentText, ...]
    tensors: tuple[TensorText, ...]
    parameters: Parameters

    @property
    def side(self) -> Orientation:
        """What its rows and columns are."""
        return self.kind.side

    @property
    def has_masked_tiles(self) -> bool:
        """Does some tile of columns hold one for one row that another row may not see?"""
        return any(walk.masked for one in self.loops for walk in one.walks)

    @property
    def boxes(self) -> tuple[BoxText, ...]:
        """The boxes that its loops walk over."""
        return tuple(walk.box for one in self.loops for walk in one.walks if walk.box)

    @property
    def signature(self) -> Signature:
        """What the pass's own kernel is launched with."""
        return repairable(self.repairing)

    @property
    def repairing(self) -> Signature:
        """What the kernel is launched with that repairs tiles."""
        sides = [box.sides for box in self.boxes]
        return signature_of(self.kind, self.parameters.roles, self.numbers, sides, resume=self.resume, final=self.final)

    @property
    def variables(self) -> tuple[str, ...]:
        """What the kernel knows of its tile when the walks begin, besides what every loop is given."""
        row = self.side.row
        names = [
            f"{row}_pos",
            "row_ok",
            "offs_m",
            "first_m",
            "last_m",
            "c",
            "b",
            "h",
            "q_heads",
            "num_heads",
            "batch_size",
        ]
        names += ["q_len", "kv_len", "q_offset", "k_offset", "num_keys"]
        for s in self.segments:
            parts = ["first", "last", "run_first", "run_last", "length", "single", "whole", "run_start", "run_count"]
            parts += ["row", "column", "begin", "at", "from", "size"]
            names += [f"segment_{s.number}_{part}" for part in parts]
        names += [f"{row}0", f"{row}1"]
        names += [f"{name}_{i}" for i in range(3) for name in (row, "corner", "far")]
        for tensor in self.tensors:
            names.append(f"{tensor.name}_ptr")
            for i in range(tensor.dims):
                names += [f"{tensor.name}_size_{i}", f"{tensor.name}_stride_{i}"]
            names.append(f"{tensor.name}_first_row")
        names += [side for box in self.boxes for side in box.sides]
        return tuple(names)


@dataclass(frozen=True)
class TensorText:
    """A tensor parameter: its identifier, the dimensions that have sizes and strides, the index of head `h` in it."""

    name: str
    dims: int
    head: str = "h"


@dataclass(frozen=True)
class SegmentText:
    """Tensors that say where the documents of rows end, and the number that their scalars carry.

    Attributes:
        start, stop, run_start, run_stop: Of columns.
        index: Of a row, in these.
        own_start, own_stop: Of rows, "" where they are not asked for.
        plain: Is each position of a document?
        two_sided: Are queries counted by rows?
    """

    number: int
    index: str
    start: str
    stop: str
    run_start: str
    run_stop: str
    own_start: str
    own_stop: str
    framed: bool
    plain: bool
    two_sided: bool
