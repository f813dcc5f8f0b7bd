"""The plan of each group of heads, in words and in tiles."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from spattn.analysis.calls import Call
from spattn.analysis.costs import Costed, costs, rounded, usual_sizes
from spattn.analysis.explanation import Group, OtherPlan, PassPart, Tiling, WalkPart
from spattn.backends.triton.cost.plans import prefers_classes, total
from spattn.backends.triton.tiles import Device, Tile
from spattn.expressions.nodes import Bool
from spattn.expressions.text import text
from spattn.layout.coverage import coverage
from spattn.layout.describe import pass_title, walk_lines, walk_title
from spattn.layout.ir import Layout, Pass
from spattn.layout.planner import plan
from spattn.relation.heads import pair_conditions, pair_groups, specialised


@dataclass(frozen=True)
class Asked:
    """What a plan is asked about.

    Attributes:
        call: The call whose cost is predicted.
        tiled: The call whose tiles are counted, perhaps shorter.
        head_dim: Width of a head.
        device: Where it runs.
    """

    call: Call
    tiled: Call
    head_dim: int
    device: Device


def groups(condition: Bool, asked: Asked) -> tuple[Group, ...]:
    """The plan of each group of heads and batch entries, and its work."""
    parts, call = pair_conditions(condition), asked.call
    members = pair_groups(parts, call.batch_size, call.num_heads) if parts else {(): range(call.entries)}
    return tuple(
        _group(specialised(condition, dict(zip(parts, values, strict=True))), len(found), asked)
        for values, found in members.items()
    )


def _group(condition: Bool, members: int, asked: Asked) -> Group:
    begin = time.perf_counter()
    layout = plan(condition)
    planning = (time.perf_counter() - begin) * 1e3
    layout, other = _chosen(condition, layout, members, asked)
    found = costs(layout, members, asked.call, asked.head_dim, asked.device)
    passes = (_part(layout, one, costed, asked.tiled) for one, costed in zip(layout.passes, found, strict=True))
    return Group(members, text(condition), tuple(passes), layout.notes, round(planning, 2), other)


def _chosen(condition: Bool, classes: Layout, members: int, asked: Asked) -> tuple[Layout, OtherPlan | None]:
    """The plan that a call takes, and the one that it does not, where rows may be tiled by residue classes."""
    call = asked.call
    if not classes.in_classes or not call.q_len * call.kv_len * members:
        return classes, None
    masked = plan(condition, classes=False)
    sizes = usual_sizes(members, call, asked.head_dim).bucketed()
    preferred = prefers_classes(classes, masked, sizes, asked.device)
    taken, other = (classes, masked) if preferred else (masked, classes)
    return taken, OtherPlan(not preferred, rounded(total(other, sizes, asked.device)))


def _part(layout: Layout, one: Pass, costed: Costed, tiled: Call) -> PassPart:
    walks = tuple(WalkPart(walk_title(walk), tuple(walk_lines(walk))) for walk in one.walks)
    tiling = _tiling(replace(layout, passes=(one,)), tiled, costed.tile)
    return PassPart(pass_title(one), walks, tiling, costed.cost)


def _tiling(layout: Layout, call: Call, tile: Tile) -> Tiling:
    """The tiles of a layout with one pass, for one head in the mean."""
    found = coverage(
        layout,
        call.q_len,
        call.kv_len,
        tile.block_m,
        tile.block_n,
        num_heads=call.num_heads,
        batch_size=call.batch_size,
        tensors=call.tensors,
    )
    work, calls = found.total, max(found.calls, 1)
    programs, full, partial = (round(total / calls) for total in (work.row_tiles, work.full, work.partial))
    return Tiling(tile.block_m, tile.block_n, programs, full, partial, work.longest, round(work.pairs / calls))
