"""What a tile of rows [u0, u1] sees of the keys: ranges whose ends are formulas in u0 and u1.

Two types that must not be mixed: `touched` is what some row has and may be over-approximated (costs work), `full` is
what every row has and may only be under-approximated (else the answer is wrong).
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spattn.expressions.algebra import select, sub, subexpressions
from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import TRUE, Bool, Expr, Int, Sym
from spattn.relation.affine import Sets, isl, piecewise

if TYPE_CHECKING:
    IslMap = Any
    IslSet = Any

BEGIN, LAST = Sym("begin"), Sym("last")
MAX_RANGES = 4
MAX_MAPS = 8  # to look at one by one, and two by two; more have one hull
MAX_FORMULA = 80  # nodes; a longer bound of the unmasked part costs more than the mask it saves


@frozen
class Range:
    """Walk coordinates `lo .. hi` that some row touches, of which `full_lo .. full_hi` every row has.

    Formulas in u0, u1 (the tile's first and last row coordinate), c (its residue) and parameters; `begin` and `last`
    stand for the walk's own ends. Empty where lo > hi. With `exact`, row u allows just lo .. hi at u0 = u1 = u.
    """

    lo: Expr
    hi: Expr
    full_lo: Expr
    full_hi: Expr
    exact: bool = False


EMPTY_FULL = (Int(0), Int(-1))
WHOLE = Range(BEGIN, LAST, *EMPTY_FULL)


def everything(masked: bool) -> Range:
    """Every row has every key; with `masked` no key is claimed for every row."""
    return replace(WHOLE if masked else Range(BEGIN, LAST, BEGIN, LAST), exact=True)


@frozen
class Ranges:
    """Ranges of one walk; `ordered` if their first keys ascend, proved."""

    ranges: tuple[Range, ...]
    ordered: bool = True


def ranges_of(sets: Sets, maps: list[IslMap], context: IslSet, masked: bool) -> Ranges:
    """Ranges of a walk over the union of `maps` {[u] -> [v]}.

    One range where each row's keys are one interval with monotone ends; else a range a term in an order that isl
    proves; else sorted at run time; else one hull. With `masked` no key is claimed for every row.
    """
    union = maps[0]
    for other in maps[1:]:
        union = union.union(other)
    whole = sets.ask("row interval", lambda: row_interval(sets, union.coalesce(), context))
    if whole is not None:
        return Ranges((_without_full(whole) if masked else whole,))
    if len(maps) > MAX_MAPS:
        maps = [union.coalesce()]
    found: list[tuple[Range, IslSet | None]] = []
    for part in _parts(sets, maps, context):
        found += _part_ranges(sets, part, context, masked)
    if len(found) > MAX_RANGES:
        joined = _joined(sets, maps, context)
        return ranges_of(sets, joined, context, masked) if len(joined) < len(maps) else Ranges((_hull(found),))
    if len(found) < 2:
        return Ranges(tuple(r for r, _ in found))
    order = sets.ask("order", lambda: _ascending(sets, [touched for _, touched in found]))
    if order is None:
        return Ranges(tuple(r for r, _ in found), ordered=False)
    return Ranges(tuple(found[i][0] for i in order))


def _without_full(r: Range) -> Range:
    return replace(r, full_lo=EMPTY_FULL[0], full_hi=EMPTY_FULL[1])


def _hull(found: list[tuple[Range, IslSet | None]]) -> Range:
    """One range over several: the walk's own ends, and the unmasked part of the first that has one."""
    best = next((r for r, _ in found if (r.full_lo, r.full_hi) != EMPTY_FULL), found[0][0])
    return Range(BEGIN, LAST, best.full_lo, best.full_hi)


def _joined(sets: Sets, maps: list[IslMap], context: IslSet) -> list[IslMap]:
    """Two of the maps as one, where a tile touches an interval of their union: first and last rows see all keys."""
    for i, j in itertools.combinations(range(len(maps)), 2):
        union = maps[i].union(maps[j]).coalesce()
        if sets.ask("join", lambda union=union: gap_free(sets, touched_set(sets, union, context))):  # type: ignore[misc]
            return [m for n, m in enumerate(maps) if n not in (i, j)] + [union]
    return maps


def _parts(sets: Sets, maps: list[IslMap], context: IslSet) -> list[IslMap]:
    """The maps, those that are no row interval cut into their few basic maps where each of these is one."""

    def interval(pairs: IslMap) -> bool:
        return sets.ask("row interval", lambda: row_interval(sets, pairs.coalesce(), context)) is not None

    parts: list[IslMap] = []
    for pairs in maps:
        basic = [isl.Map.from_basic_map(b) for b in pairs.coalesce().get_basic_maps()]
        cut = 1 < len(basic) <= MAX_RANGES and not interval(pairs) and all(map(interval, basic))
        parts += basic if cut else [pairs]
    return parts


def _part_ranges(sets: Sets, pairs: IslMap, context: IslSet, masked: bool) -> list[tuple[Range, IslSet | None]]:
    touched = sets.ask("touched", lambda: touched_set(sets, pairs, context))
    interval = sets.ask("row interval", lambda: row_interval(sets, pairs.coalesce(), context))
    if interval is not None:
        return [(_without_full(interval) if masked else interval, touched)]
    if touched is None or touched.n_basic_set() > 12:
        hull = isl.Map.from_basic_map(pairs.remove_divs().simple_hull())
        touched = sets.ask("touched hull", lambda: touched_set(sets, hull, context))
        if touched is None:
            return [(WHOLE, None)]
    full = None if masked else sets.ask("full", lambda: full_set(sets, pairs, context))
    groups = sets.ask("groups", lambda: gap_free_groups(sets, touched, over=True)) or [touched]
    fulls = (
        [] if full is None or full.is_empty() else sets.ask("groups", lambda: gap_free_groups(sets, full, over=False))
    )
    return [(_group_range(sets, group, fulls or [], context), group) for group in groups]


def _group_range(sets: Sets, group: IslSet, fulls: list[IslSet], context: IslSet) -> Range:
    ends = sets.ask("bounds", lambda: bounds(sets, group, context))
    if ends is None:
        hull = isl.Set.from_basic_set(group.remove_divs().simple_hull())
        ends = (
            sets.ask("bounds of hull", lambda: bounds(sets, hull, context))
            or sets.ask("bounds at any length", lambda: bounds(sets, _at_any_length(hull), context))
            or (BEGIN, LAST)
        )
    inside = EMPTY_FULL
    mine = [f for f in fulls if not sets.ask("meets", lambda f=f: f.intersect(group).is_empty())]  # type: ignore[misc]
    if mine:
        best = max(mine, key=lambda f: _sample_size(sets, f))
        found = sets.ask("bounds", lambda: bounds(sets, best, context))
        if found is not None and sum(len(subexpressions(end)) for end in found) <= MAX_FORMULA:
            inside = found  # type: ignore[assignment]
    return Range(*ends, *inside)


def _at_any_length(keys: IslSet) -> IslSet:
    """The keys that there are for some kv_len: more of them, with a parameter less."""
    place = keys.find_dim_by_name(isl.dim_type.param, "kv_len")
    return keys if place < 0 else keys.project_out(isl.dim_type.param, place, 1)


def row_interval(sets: Sets, pairs: IslMap, context: IslSet) -> Range | None:
    """If every row's keys are one interval whose ends are monotone in the row: its formulas at u0 and u1.

    touched = [lo(u0), hi(u1)], full = [lo(u1), hi(u0)]; a falling end swaps u0 and u1.
    """
    rows = isl.Set.universe(pairs.domain().get_space())
    if not rows.intersect_params(context).is_subset(sets.explicit(pairs.domain())) or pairs.n_basic_map() > 6:
        return None
    pairs = sets.explicit(pairs)
    at_least = sets.explicit(pairs.apply_range(sets.map("{ [v] -> [w] : w >= v }")))
    at_most = sets.explicit(pairs.apply_range(sets.map("{ [v] -> [w] : w <= v }")))
    if not at_least.intersect(at_most).intersect_params(context).is_subset(pairs):
        return None
    low = _monotone_end(sets, pairs, at_least, context, low=True)
    high = _monotone_end(sets, pairs, at_most, context, low=False)
    if low is None or high is None:
        return None
    return Range(low[0], high[1], low[1], high[0], exact=True)


def _monotone_end(sets: Sets, pairs: IslMap, cone: IslMap, context: IslSet, low: bool) -> tuple[Expr, Expr] | None:
    """The end at the row where it is outermost for a low end (innermost for a high one), and at the other row."""
    if isl.Map.universe(cone.get_space()).intersect_params(context).is_subset(cone):
        return (BEGIN, BEGIN) if low else (LAST, LAST)
    end = pairs.lexmin_pw_multi_aff() if low else pairs.lexmax_pw_multi_aff()
    following = sets.explicit(sets.map("{ [u] -> [w] : w = u + 1 }").apply_range(cone))
    rising = following.is_subset(cone) if low else cone.is_subset(following)
    falling = cone.is_subset(following) if low else following.is_subset(cone)
    if not (rising or falling):
        return None

    def at(name: str) -> Expr:
        point = isl.MultiAff(f"[{name}] -> {{ [] -> [({name})] }}", context=sets.context)
        return piecewise(end.get_at(0).pullback_multi_aff(point).project_domain_on_params(), context, sets)

    return (at("u0"), at("u1")) if rising else (at("u1"), at("u0"))


def touched_set(sets: Sets, pairs: IslMap, context: IslSet) -> IslSet:
    """Keys that some row of [u0, u1] has."""
    rows = sets.set("[u0, u1] -> { [u] : u0 <= u <= u1 }")
    return sets.explicit(pairs.intersect_domain(rows).range().intersect_params(context)).coalesce()


def full_set(sets: Sets, pairs: IslMap, context: IslSet) -> IslSet:
    """Keys that every row of [u0, u1] has."""
    rows = sets.set("[u0, u1] -> { [u] : u0 <= u <= u1 }")
    missing = sets.explicit(sets.explicit(pairs).complement().intersect_domain(rows).range())
    return missing.complement().intersect_params(context).coalesce()


def gap_free(sets: Sets, keys: IslSet) -> bool:
    """Is the one-dimensional set an interval for each value of its parameters?"""
    if keys.n_basic_set() == 1 and keys.get_basic_sets()[0].dim(isl.dim_type.div) == 0:
        return True
    keys = sets.explicit(keys)
    at_least = sets.explicit(keys.apply(sets.map("{ [v] -> [w] : w >= v }")))
    at_most = sets.explicit(keys.apply(sets.map("{ [v] -> [w] : w <= v }")))
    return bool(at_least.intersect(at_most).subtract(keys).is_empty())


def gap_free_groups(sets: Sets, keys: IslSet, over: bool) -> list[IslSet]:
    """Intervals whose union is the set, joined greedily. One with gaps is hulled (`over`) or dropped."""
    if gap_free(sets, keys):
        return [keys]
    parts: list[IslSet] = []
    for basic in keys.get_basic_sets():
        part = isl.Set.from_basic_set(basic)
        if gap_free(sets, part):
            parts.append(part)
        elif over:
            parts.append(isl.Set.from_basic_set(part.simple_hull()))
    joined = True
    while joined:
        joined = False
        for i, j in itertools.combinations(range(len(parts)), 2):
            union = parts[i].union(parts[j]).coalesce()
            if gap_free(sets, union):
                parts = [part for n, part in enumerate(parts) if n not in (i, j)] + [union]
                joined = True
                break
    return parts


def bounds(sets: Sets, keys: IslSet, context: IslSet) -> tuple[Expr, Expr]:
    """First and last element of the hull; where the set is empty the last is before the first."""
    keys = keys.coalesce()
    if keys.is_empty():
        return Int(0), Int(-1)
    lo = _extreme(sets, keys, context, low=True)
    hi = _extreme(sets, keys, context, low=False)
    there = sets.explicit(keys.params())
    if context.is_subset(there):
        return lo, hi
    exists = sets.parameters_condition(there.gist(context).coalesce(), context)
    return lo, select(exists, hi, sub(lo, 1))


def _extreme(sets: Sets, keys: IslSet, context: IslSet, low: bool) -> Expr:
    """The least (greatest) element; the walk's own end where there is none.

    Asked of each basic set alone: isl disagrees with itself about bounds of unions whose parts are partly unbounded.
    """
    own = BEGIN if low else LAST
    bounded = unbounded = None
    for basic in keys.get_basic_sets():
        part = isl.Set.from_basic_set(basic)
        try:
            sets.optimum(part, low)
            bounded = part if bounded is None else bounded.union(part)
        except isl.Error as error:
            if "unbounded" not in str(error):
                raise
            unbounded = part if unbounded is None else unbounded.union(part)
    if bounded is None:
        return own
    value = piecewise(sets.optimum(bounded, low), context, sets)
    if unbounded is None:
        return value
    there = sets.explicit(unbounded.params())
    if context.is_subset(there):
        return own
    where: Bool = sets.parameters_condition(there.gist(context).coalesce(), context)
    return own if where == TRUE else select(where, own, value)


def _ascending(sets: Sets, groups: list[IslSet | None]) -> list[int] | None:
    """An order in which first elements ascend for all parameters, or None where none can be proved."""
    known = [group for group in groups if group is not None]
    if len(known) < len(groups):
        return None

    def before(a: IslSet, b: IslSet) -> bool:
        at_least = sets.explicit(a.apply(sets.map("{ [v] -> [w] : w >= v }")))
        return bool(b.intersect_params(sets.explicit(a.params())).subtract(at_least).is_empty())

    left, order = list(range(len(known))), []
    while left:
        first = next((i for i in left if all(i == j or before(known[i], known[j]) for j in left)), None)
        if first is None:
            return None
        order.append(first)
        left.remove(first)
    return order


def _sample_size(sets: Sets, keys: IslSet) -> int:
    """How many keys the set has for a few tiles: to pick the larger of two sets, never for an answer."""
    total = 0
    for u0, length in ((1024, 4096), (3000, 8192), (2**15, 65536)):
        values = {"u0": u0, "u1": u0 + 127, "kv_len": length}
        fixed = keys
        for i in range(fixed.dim(isl.dim_type.param)):
            name = fixed.get_dim_name(isl.dim_type.param, i)
            fixed = fixed.fix_val(isl.dim_type.param, i, isl.Val(values.get(name, 0), context=sets.context))
        fixed = fixed.intersect(sets.set(f"{{ [v] : 0 <= v < {length} }}"))
        fixed = fixed.project_out(isl.dim_type.param, 0, fixed.dim(isl.dim_type.param))
        size = sets.ask("sample", lambda fixed=fixed: int(fixed.count_val().to_python()))  # type: ignore[misc]
        total += size or 0
    return total
