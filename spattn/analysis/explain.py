"""What a pattern means and what its kernels will do, as data; `str()` says it in words (`analysis.report`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spattn.analysis.remarks import Remark, remarks
from spattn.analysis.samples import sample_tensors
from spattn.errors import SpattnError
from spattn.expressions.algebra import subexpressions
from spattn.expressions.nodes import Bool, Int
from spattn.expressions.tensors import Tensors
from spattn.expressions.text import text
from spattn.layout import counting
from spattn.layout.coverage import Coverage, coverage
from spattn.layout.describe import pass_title, walk_lines, walk_title
from spattn.layout.ir import Layout
from spattn.layout.planner import plan
from spattn.oracle import is_spread
from spattn.pattern import Pattern
from spattn.relation import counting as row_counting
from spattn.relation.formula import Formula, formula
from spattn.relation.heads import pair_conditions, pair_groups, specialised
from spattn.relation.terms import disjunction

BLOCKS = (64, 128)
MAX_TILED = 1 << 15  # tokens at which tiles are counted at most: a million visits of 64 x 64 tiles a half second
MAX_ROWS = 1 << 21  # queries whose keys are counted one by one
MAX_REACH = 1 << 18  # sum of a pattern's constants up to which a formula is looked for: it is checked up to there
MAX_UNCUT = 1 << 12  # the same where a pattern has no cuts and its partial tiles are looked at


@dataclass(frozen=True)
class Tiling:
    """The work of one pass for one head, in tiles of `block` x `block`.

    Attributes:
        programs: Tiles of queries.
        full: Key tiles without a mask.
        partial: Key tiles with one.
        longest: Key tiles of the longest program.
        pairs: Pairs computed.
    """

    block: int
    programs: int
    full: int
    partial: int
    longest: int
    pairs: int


@dataclass(frozen=True)
class WalkPart:
    """A walk in words."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class PassPart:
    """A pass in words and in tiles."""

    title: str
    walks: tuple[WalkPart, ...]
    tilings: tuple[Tiling, ...]


@dataclass(frozen=True)
class Group:
    """Heads and batch entries that share a plan.

    Attributes:
        members: How many (batch entry, head) pairs.
        meaning: The pattern for these, as a condition.
        notes: What the planner approximated; masks stay exact.
        planning_ms: How long planning took.
    """

    members: int
    meaning: str
    passes: tuple[PassPart, ...]
    notes: tuple[str, ...]
    planning_ms: float


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
        tiled_len: (q_len, kv_len) at which tiles were counted: shorter than asked where that would take too long.
        computed: Pairs that 64 x 64 tiles compute for each allowed one, at `tiled_len`.
        flops: Of the allowed pairs, forward: 4 * head_dim each.
        bytes: q, k, v and out once, in two bytes an element.
    """

    pattern: str
    meaning: str
    terms: tuple[str, ...]
    free_names: tuple[tuple[str, str], ...]
    dead_terms: tuple[str, ...] | None
    empty_row: str | None
    q_len: int
    kv_len: int
    num_heads: int
    batch_size: int
    head_dim: int
    pairs: int | None
    density: float | None
    formula: str | None
    sampled: bool
    tiled_len: tuple[int, int]
    computed: float | None
    flops: int | None
    bytes: int
    groups: tuple[Group, ...]
    remarks: tuple[Remark, ...]
    backend: str

    def __str__(self) -> str:
        from spattn.analysis.report import report

        return "\n".join(report(self))

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Sizes:
    """Of the call that is explained."""

    q_len: int
    kv_len: int
    num_heads: int
    batch_size: int

    @property
    def entries(self) -> int:
        """(batch entry, head) pairs."""
        return self.num_heads * self.batch_size

    def capped(self, most: int) -> Sizes:
        """The same with at most so many queries and keys."""
        return Sizes(min(self.q_len, most), min(self.kv_len, most), self.num_heads, self.batch_size)


def explain(
    pattern: Pattern,
    q_len: int = 4096,
    kv_len: int | None = None,
    *,
    num_heads: int = 1,
    batch_size: int = 1,
    head_dim: int = 128,
    tensors: Mapping[str, Any] | None = None,
    backend: str = "auto",
) -> Explanation:
    """What a pattern means, and what it costs at these lengths.

    Args:
        pattern: The pattern.
        q_len: Queries, in tokens.
        kv_len: Keys, as many as queries if not given.
        num_heads: Query heads.
        batch_size: Batch entries.
        head_dim: Width of a head.
        tensors: The free names; example tensors stand in if none is given.
        backend: The backend that was asked for.
    """
    sizes = Sizes(q_len, q_len if kv_len is None else kv_len, num_heads, batch_size)
    condition = pattern.condition
    names = pattern.free_names
    given = dict(tensors) if tensors else None
    pairs = _pairs(condition, names, sizes, given)
    every = sizes.q_len * sizes.kv_len * sizes.entries
    tiled = sizes if given else sizes.capped(MAX_TILED)
    groups = _groups(condition, names, tiled, given)
    return Explanation(
        pattern=str(pattern),
        meaning=text(condition),
        terms=tuple(text(term.condition) for term in disjunction(condition) or ()),
        free_names=tuple(names.items()),
        dead_terms=_decided(pattern.dead_terms),
        empty_row=_decided(lambda: _empty_row(pattern)),
        q_len=sizes.q_len,
        kv_len=sizes.kv_len,
        num_heads=num_heads,
        batch_size=batch_size,
        head_dim=head_dim,
        pairs=pairs,
        density=None if pairs is None else pairs / every if every else 0.0,
        formula=_formula(condition),
        sampled=bool(names) and given is None,
        tiled_len=(tiled.q_len, tiled.kv_len),
        computed=_computed(groups, condition, names, tiled, given, pairs if tiled == sizes else None),
        flops=None if pairs is None else 4 * head_dim * pairs,
        bytes=4 * sizes.entries * head_dim * (sizes.q_len + sizes.kv_len),
        groups=groups,
        remarks=remarks(pattern),
        backend=backend,
    )


def _decided(question: Any) -> Any:
    """An answer, None where there is no proof either way."""
    try:
        return question()
    except SpattnError:
        return None


def _empty_row(pattern: Pattern) -> str | None:
    found = pattern.empty_row()
    if found is None:
        return None
    how = "has no key" if found.certain else "has no key that is sure to be there"
    where = f" of head {found.call.head}" if found.call.num_heads > 1 else ""
    return f"row {found.q} of {found.kv_len}{where} {how}"


def _formula(condition: Bool) -> str | None:
    found = _sought(condition)
    return None if found is None else str(found)


def _sought(condition: Bool) -> Formula | None:
    reach = sum(abs(part.value) for part in subexpressions(condition) if isinstance(part, Int))
    return formula(condition) if reach <= MAX_REACH else None


def _pairs(condition: Bool, names: dict[str, str], sizes: Sizes, given: dict[str, Any] | None) -> int | None:
    """Allowed pairs of all heads and batch entries."""
    if sizes.q_len > MAX_ROWS:
        return _by_formula(condition, sizes)
    arrays = sample_tensors(condition, names, sizes.kv_len) if given is None else given
    call = (arrays, None, sizes.num_heads, sizes.batch_size)
    found = row_counting.count(condition, sizes.q_len, sizes.kv_len, *call)
    if found is None:
        if max(sizes.q_len, sizes.kv_len) > MAX_UNCUT:
            return None
        found = counting.count_by_layout(condition, sizes.q_len, sizes.kv_len, *call)
    spread = is_spread(condition, Tensors(arrays, sizes.kv_len, sizes.batch_size, sizes.num_heads))
    return found if spread else found * sizes.entries


def _by_formula(condition: Bool, sizes: Sizes) -> int | None:
    found = _sought(condition)
    if found is None or sizes.q_len != sizes.kv_len:
        return None
    try:
        return found.at(sizes.q_len) * sizes.entries
    except ValueError:
        return None


def _groups(condition: Bool, names: dict[str, str], sizes: Sizes, given: dict[str, Any] | None) -> tuple[Group, ...]:
    parts = pair_conditions(condition)
    members = pair_groups(parts, sizes.batch_size, sizes.num_heads) if parts else {(): range(sizes.entries)}
    arrays = sample_tensors(condition, names, sizes.kv_len) if given is None else given
    return tuple(
        _group(specialised(condition, dict(zip(parts, values, strict=True))), len(found), sizes, arrays)
        for values, found in members.items()
    )


def _group(condition: Bool, members: int, sizes: Sizes, arrays: dict[str, Any]) -> Group:
    begin = time.perf_counter()
    layout = plan(condition)
    planning = (time.perf_counter() - begin) * 1e3
    tilings = [_tilings(layout, sizes, arrays, block) for block in BLOCKS]
    passes = (
        PassPart(
            pass_title(one),
            tuple(WalkPart(walk_title(walk), tuple(walk_lines(walk))) for walk in one.walks),
            tuple(of_block[i] for of_block in tilings),
        )
        for i, one in enumerate(layout.passes)
    )
    return Group(members, text(condition), tuple(passes), layout.notes, round(planning, 2))


def _tilings(layout: Layout, sizes: Sizes, arrays: dict[str, Any], block: int) -> list[Tiling]:
    """Of each pass, for one head in the mean."""
    found = coverage(
        layout,
        sizes.q_len,
        sizes.kv_len,
        block,
        block,
        num_heads=sizes.num_heads,
        batch_size=sizes.batch_size,
        tensors=arrays,
    )
    return [_tiling(one, block, max(found.calls, 1)) for one in found.passes]


def _tiling(work: Coverage, block: int, calls: int) -> Tiling:
    mean = (round(total / calls) for total in (work.row_tiles, work.full, work.partial))
    programs, full, partial = mean
    return Tiling(block, programs, full, partial, work.longest, round(work.pairs / calls))


def _computed(
    groups: tuple[Group, ...],
    condition: Bool,
    names: dict[str, str],
    sizes: Sizes,
    given: dict[str, Any] | None,
    pairs: int | None,
) -> float | None:
    """Pairs that the smaller tiles compute for each allowed one."""
    allowed = _pairs(condition, names, sizes, given) if pairs is None else pairs
    if not allowed:
        return None
    return sum(group.members * one.tilings[0].pairs for group in groups for one in group.passes) / allowed
