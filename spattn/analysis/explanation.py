"""What a pattern means and what its kernels will do, as data; `str()` says it in words (`analysis.report`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from spattn.analysis.remarks import Remark


@dataclass(frozen=True)
class Tiling:
    """The work of one pass for one head, in tiles of `block_m` queries and `block_n` keys.

    Attributes:
        programs: Tiles of queries.
        full: Key tiles without a mask.
        partial: Key tiles with one.
        longest: Key tiles of the longest program.
        pairs: Pairs computed.
    """

    block_m: int
    block_n: int
    programs: int
    full: int
    partial: int
    longest: int
    pairs: int


@dataclass(frozen=True)
class Candidate:
    """A tile that a pass may be run with, and the microseconds that it is predicted to take."""

    tile: str
    microseconds: float


@dataclass(frozen=True)
class Cost:
    """What a pass is predicted to cost with the tile that is chosen for it, for all its heads and batch entries.

    Attributes:
        tile: Queries x keys, and how Triton schedules it.
        reason: Why it was chosen.
        bound: What takes the time: "compute", "cache", "memory", "longest" (the longest program) or "waves".
        programs: How many run.
        resident: How many share a processor.
        splits: How many share the keys of a tile of queries.
        pairs: Computed, allowed or not.
        flops: For these.
        loaded, moved: Bytes that programs load of keys and values; bytes that memory moves, partial results included.
        launches: Of kernels.
        candidates: Those considered, the chosen one first.
    """

    tile: str
    microseconds: float
    reason: str
    bound: str
    programs: int
    resident: int
    splits: int
    pairs: int
    flops: int
    loaded: int
    moved: int
    launches: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class WalkPart:
    """A walk in words."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class PassPart:
    """A pass in words and in tiles.

    Attributes:
        tiling: None where no Triton kernel serves the call.
        cost: None there, and where there is nothing to do.
    """

    title: str
    walks: tuple[WalkPart, ...]
    tiling: Tiling | None
    cost: Cost | None


@dataclass(frozen=True)
class OtherPlan:
    """A plan that was considered and not taken.

    Attributes:
        classes: Does it tile rows by residue classes? Else they are masked as they come.
        microseconds: That it is predicted to take.
    """

    classes: bool
    microseconds: float


@dataclass(frozen=True)
class Group:
    """Heads and batch entries that share a plan.

    Attributes:
        members: How many (batch entry, head) pairs.
        meaning: The pattern for these, as a condition.
        notes: What the planner approximated; masks stay exact.
        planning_ms: How long planning took.
        other: The plan not taken, where there are two.
        measured: Microseconds of all passes, as measured with their tiles; None where these are predicted.
    """

    members: int
    meaning: str
    passes: tuple[PassPart, ...]
    notes: tuple[str, ...]
    planning_ms: float
    other: OtherPlan | None
    measured: float | None


@dataclass(frozen=True)
class Explanation:
    """A pattern, and its cost at given lengths.

    Attributes:
        terms: The meaning as a union of intersections; none where there are too many.
        free_names: (name, what it is) of the tensors that a call gives.
        dead_terms: Terms that add nothing; None where that was not decided.
        empty_row: A row without keys, in words; None where there is none or that was not decided.
        pairs: Allowed pairs of all heads and batch entries; None where counting would take too long.
        formula: The pairs of one head for q_len = kv_len = S.
        sampled: The counts hold for example tensors.
        kv_len: Keys of the whole.
        k_offset: Position of the first key that is given.
        num_keys: How many are given.
        tiled_len: (q_len, num_keys) at which tiles were counted: shorter than asked where that would take too long.
        tiled_kv_len: Keys of the whole there.
        computed: Pairs that the chosen tiles compute for each allowed one, at `tiled_len`.
        flops: Of the allowed pairs, forward: 2 * (head_dim + v_head_dim) each.
        bytes: q, k, v and out once.
        device: What times are predicted for.
        microseconds: Of the call's kernels: as measured where they were, else predicted.
        launches: Of kernels.
        backend: What was asked for.
        served: What serves such a call on a GPU; None where what was asked for cannot.
        refusal: Why Triton does not.
        tune: Does a call measure tiles that nobody has measured yet?
    """

    pattern: str
    meaning: str
    terms: tuple[str, ...]
    free_names: tuple[tuple[str, str], ...]
    dead_terms: tuple[str, ...] | None
    empty_row: str | None
    q_len: int
    kv_len: int
    q_offset: int
    k_offset: int
    num_keys: int
    num_heads: int
    num_kv_heads: int
    batch_size: int
    head_dim: int
    v_head_dim: int
    dtype: str
    pairs: int | None
    density: float | None
    formula: str | None
    sampled: bool
    tiled_len: tuple[int, int]
    tiled_kv_len: int
    computed: float | None
    flops: int | None
    bytes: int
    device: str
    microseconds: float
    launches: int
    groups: tuple[Group, ...]
    remarks: tuple[Remark, ...]
    backend: str
    served: str | None
    refusal: str | None
    tune: bool

    def __str__(self) -> str:
        from spattn.analysis.report import report

        return "\n".join(report(self))

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON data."""
        return asdict(self)
