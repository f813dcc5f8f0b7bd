"""The plan of each group of heads, in words and in tiles."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from spattn.analysis.calls import Call
from spattn.analysis.costs import Costed, costs, rounded
from spattn.analysis.explanation import Group, OtherPlan, PassPart, Tiling, WalkPart
from spattn.attend import Attention
from spattn.codegen.kernel_specs import FORWARD
from spattn.codegen.languages import languages_of
from spattn.codegen.tile import Tile
from spattn.cost.plans import total
from spattn.cost.tile_choice import Asked, plan_sizes, suits_classes
from spattn.expressions.nodes import Bool
from spattn.expressions.text import text
from spattn.gpu.tile_records import key_of, known
from spattn.gpu.token_counts import token_counts
from spattn.layout.coverage import coverage
from spattn.layout.describe import pass_title, walk_lines, walk_title
from spattn.layout.ir import Layout, Pass
from spattn.layout.planner import plan
from spattn.machine.device import Device
from spattn.relation.heads import pair_conditions, specialised


@dataclass(frozen=True)
class About:
    """What plans are asked about.

    Attributes:
        call: The call whose cost is predicted.
        tiled: The call whose tiles are counted, perhaps shorter.
        device: Where it runs.
    """

    call: Call
    tiled: Call
    device: Device


def groups(attn: Attention, about: About, *, in_triton: bool) -> tuple[Group, ...]:
    """The plan of each group of heads and batch entries, and its work where Triton does it."""
    shape = about.call.shape
    each = _tiled_group if in_triton else _plain_group
    return tuple(
        each(attn, values, len(pairs), about)
        for values, pairs in attn.groups(shape.batch_size, shape.num_q_heads).items()
    )


def _plain_group(attn: Attention, values: tuple[bool, ...], members: int, about: About) -> Group:
    """A group whose plan no kernel follows."""
    condition, milliseconds = _planned(attn, values)
    layout = attn.layout_of(values)
    passes = tuple(PassPart(pass_title(one), _walks(one), None, None) for one in layout.passes)
    return Group(members, text(condition), passes, layout.notes, milliseconds, None, None)


def _tiled_group(attn: Attention, values: tuple[bool, ...], members: int, about: About) -> Group:
    condition, milliseconds = _planned(attn, values)
    call, device = about.call, about.device
    languages = languages_of(attn.backend)
    by_residue = suits_classes(attn, values, call.shape, members, device, languages)
    layout = attn.layout_of(values, by_residue)
    sizes = {name: np.shape(tensor) for name, tensor in call.tensors.items()}
    tokens = token_counts(layout, sizes, call.kv_len)
    asked = Asked(FORWARD, layout, call.shape, members, tokens, device, languages)
    records = attn.records
    source = "\n".join(attn.module_of(values, by_residue, language).text for language in languages)
    measured = known(key_of(asked, source), records, len(layout.passes)) if records is not None else None
    found = zip(layout.passes, costs(asked, call, measured), strict=True)
    passes = tuple(_part(layout, one, costed, about.tiled) for one, costed in found)
    other = _other(attn, values, members, about, taken=by_residue)
    took = measured.microseconds if measured else None
    return Group(members, text(condition), passes, layout.notes, milliseconds, other, took)


def _planned(attn: Attention, values: tuple[bool, ...]) -> tuple[Bool, float]:
    """The condition of a group, and the milliseconds that it takes to plan it, which is known by now."""
    whole = attn.pattern.condition
    condition = specialised(whole, dict(zip(pair_conditions(whole), values, strict=True)))
    begin = time.perf_counter()
    plan(condition)
    return condition, round((time.perf_counter() - begin) * 1e3, 2)


def _other(attn: Attention, values: tuple[bool, ...], members: int, about: About, *, taken: bool) -> OtherPlan | None:
    """The plan that a call does not take, where rows may be tiled by residue classes."""
    shape = about.call.shape
    if not attn.layout_of(values).in_classes or not shape.q_len * shape.num_keys * members:
        return None
    other = attn.layout_of(values, not taken)
    return OtherPlan(
        not taken, rounded(total(other, plan_sizes(shape, members), about.device, languages_of(attn.backend)))
    )


def _part(layout: Layout, one: Pass, costed: Costed, tiled: Call) -> PassPart:
    tiling = _tiling(replace(layout, passes=(one,)), tiled, costed.tile)
    return PassPart(pass_title(one), _walks(one), tiling, costed.cost)


def _walks(one: Pass) -> tuple[WalkPart, ...]:
    return tuple(WalkPart(walk_title(walk), tuple(walk_lines(walk))) for walk in one.walks)


def _tiling(layout: Layout, call: Call, tile: Tile) -> Tiling:
    """The tiles of a layout with one pass, for one head in the mean."""
    found = coverage(
        layout,
        call.q_len,
        call.kv_len,
        tile.block_m,
        tile.block_n,
        q_offset=call.q_offset,
        given=call.given,
        num_heads=call.num_heads,
        batch_size=call.batch_size,
        tensors=call.tensors,
    )
    work, calls = found.total, max(found.calls, 1)
    programs, full, partial = (round(total / calls) for total in (work.row_tiles, work.full, work.partial))
    return Tiling(tile.block_m, tile.block_n, programs, full, partial, work.longest, round(work.pairs / calls))
