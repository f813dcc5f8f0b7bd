"""The plan of each group of heads, in words and in tiles."""

from __future__ import annotations

import time

from spattn.analysis.calls import Call
from spattn.analysis.explanation import Group, PassPart, Tiling, WalkPart
from spattn.expressions.nodes import Bool
from spattn.expressions.text import text
from spattn.layout.coverage import Coverage, coverage
from spattn.layout.describe import pass_title, walk_lines, walk_title
from spattn.layout.ir import Layout
from spattn.layout.planner import plan
from spattn.relation.heads import pair_conditions, pair_groups, specialised

BLOCKS = (64, 128)


def groups(condition: Bool, call: Call) -> tuple[Group, ...]:
    """The plan of each group of heads and batch entries, and its work in this call."""
    parts = pair_conditions(condition)
    members = pair_groups(parts, call.batch_size, call.num_heads) if parts else {(): range(call.entries)}
    return tuple(
        _group(specialised(condition, dict(zip(parts, values, strict=True))), len(found), call)
        for values, found in members.items()
    )


def _group(condition: Bool, members: int, call: Call) -> Group:
    begin = time.perf_counter()
    layout = plan(condition)
    planning = (time.perf_counter() - begin) * 1e3
    tilings = [_tilings(layout, call, block) for block in BLOCKS]
    passes = (
        PassPart(
            pass_title(one),
            tuple(WalkPart(walk_title(walk), tuple(walk_lines(walk))) for walk in one.walks),
            tuple(of_block[i] for of_block in tilings),
        )
        for i, one in enumerate(layout.passes)
    )
    return Group(members, text(condition), tuple(passes), layout.notes, round(planning, 2))


def _tilings(layout: Layout, call: Call, block: int) -> list[Tiling]:
    """Of each pass, for one head in the mean."""
    found = coverage(
        layout,
        call.q_len,
        call.kv_len,
        block,
        block,
        num_heads=call.num_heads,
        batch_size=call.batch_size,
        tensors=call.tensors,
    )
    return [_tiling(one, block, max(found.calls, 1)) for one in found.passes]


def _tiling(work: Coverage, block: int, calls: int) -> Tiling:
    programs, full, partial = (round(total / calls) for total in (work.row_tiles, work.full, work.partial))
    return Tiling(block, programs, full, partial, work.longest, round(work.pairs / calls))
