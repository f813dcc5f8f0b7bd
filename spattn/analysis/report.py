"""An explanation in words."""

from __future__ import annotations

from collections.abc import Iterator

from spattn.analysis.explanation import Cost, Explanation, Group, PassPart, Tiling
from spattn.analysis.placement import unusual

SHOWN = 12
BOUNDS = {
    "compute": "bound by computing",
    "cache": "bound by loads from the L2 cache",
    "memory": "bound by memory",
    "longest": "as long as its longest program",
    "waves": "as long as its programs, one after the other",
}


def report(explained: Explanation) -> Iterator[str]:
    """Lines for people."""
    yield from _meaning(explained)
    yield ""
    yield from _cost(explained)
    for i, group in enumerate(explained.groups):
        yield ""
        yield from _group(group, explained, i)
    for remark in explained.remarks:
        yield ""
        yield str(remark)


def _meaning(explained: Explanation) -> Iterator[str]:
    yield f"pattern     {explained.pattern}"
    yield f"means       {explained.meaning}"
    for i, term in enumerate(explained.terms[:SHOWN]):
        yield f"{'normal form' if i == 0 else '        or':<12}{term}"
    if len(explained.terms) > SHOWN:
        yield f"{'':12}and {len(explained.terms) - SHOWN} terms more"
    if explained.free_names:
        yield f"free names  {', '.join(f'{name} ({role})' for name, role in explained.free_names)}"
    if explained.dead_terms:
        yield f"dead terms  {', '.join(explained.dead_terms)}: the others allow all that they allow"
    if explained.empty_row:
        yield f"empty rows  {explained.empty_row}: such rows give 0"


def _cost(explained: Explanation) -> Iterator[str]:
    heads = f", {explained.num_heads} heads" if explained.num_heads > 1 else ""
    if explained.num_kv_heads != explained.num_heads:
        heads += f" on {explained.num_kv_heads} of keys"
    batch = f", batch {explained.batch_size}" if explained.batch_size > 1 else ""
    example = ", with example tensors" if explained.sampled else ""
    lengths = f"{explained.q_len} queries, {explained.num_keys} keys"
    yield f"at          {lengths}{heads}{batch}{_placement(explained)}{example}"
    yield f"of          {explained.dtype}, {_widths(explained)}"
    yield f"backend     {_backend(explained)}"
    if explained.pairs is None:
        yield "pairs       not counted at this length"
    else:
        yield f"pairs       {explained.pairs}, density {_percent(explained.density or 0.0)}"
    if explained.formula:
        yield f"formula     {explained.formula}"
    if explained.flops is not None:
        yield f"forward     {_scaled(explained.flops, 1000)}FLOP"
    yield f"memory      {_scaled(explained.bytes, 1024)}B of q, k, v and out"
    if explained.computed is not None:
        yield f"computed    {explained.computed:.2f} pairs for each allowed one, in the tiles that are chosen"
    if explained.launches:
        launches = _count(explained.launches, "launch", "launches")
        how = "measured" if all(group.measured is not None for group in explained.groups) else "predicted"
        yield f"{how:<12}{_time(explained.microseconds)} on one {explained.device}, {launches}"
    asked, tiled = (
        (explained.q_len, explained.num_keys, explained.kv_len),
        (*explained.tiled_len, explained.tiled_kv_len),
    )
    if explained.computed is not None and tiled != asked:
        whole = f" of {tiled[2]}" if explained.num_keys < explained.kv_len else ""
        yield f"tiles       counted at {tiled[0]} queries and {tiled[1]} keys{whole}"


def _placement(explained: Explanation) -> str:
    keys = explained.k_offset, explained.num_keys, explained.kv_len
    return "".join(f", {words}" for words in unusual(explained.q_len, explained.q_offset, *keys))


def _widths(explained: Explanation) -> str:
    own = f", {explained.v_head_dim} of v and out" if explained.v_head_dim != explained.head_dim else ""
    return f"head dimension {explained.head_dim}{own}"


def _backend(explained: Explanation) -> str:
    """Who serves the call, and why not Triton."""
    if explained.served is None:
        return f"none: backend {explained.backend!r}: {explained.refusal}"
    if explained.served == "torch":
        return f"torch, since Triton does not: {explained.refusal}" if explained.backend == "auto" else "torch"
    return "triton, on a GPU"


def _group(group: Group, explained: Explanation, number: int) -> Iterator[str]:
    if len(explained.groups) > 1:
        entries = explained.num_heads * explained.batch_size
        yield f"group {number}     {group.members} of {entries} heads and batch entries, where {group.meaning}"
    passes = _count(len(group.passes), "pass", "passes")
    yield f"plan        {passes}, made in {group.planning_ms:.1f} ms, for every length"
    if group.other:
        how = "rows by residue classes" if group.other.classes else "no residue classes, rows masked as they come"
        yield f"  not taken: {how}, {_time(group.other.microseconds)}"
    if group.measured is not None:
        yield f"  measured: {_time(group.measured)} of all passes with these tiles; what each takes is predicted"
    elif explained.tune and explained.launches:
        yield "  not measured yet: the first call of this kind tries the best of these tiles"
    for i, one in enumerate(group.passes):
        yield from _pass(one, i)
    for note in group.notes:
        yield f"  note: approximated by the planner ({note}): tiles may be visited in vain, masks are exact"


def _pass(one: PassPart, number: int) -> Iterator[str]:
    yield f"  pass {number}: {one.title}"
    for walk in one.walks:
        yield f"    walk {walk.title}"
        for line in walk.lines:
            yield f"      {line}"
    if not one.walks:
        yield "    no keys"
    if one.tiling is None:
        return
    yield f"    {_tiles(one.tiling)}"
    yield from _tile_cost(one.cost) if one.cost else ["    not launched: earlier passes own every row"]


def _tiles(tiling: Tiling) -> str:
    return (
        f"{tiling.block_m} x {tiling.block_n}: {_count(tiling.programs, 'tile')} of queries for each head, "
        f"{tiling.full} full and {tiling.partial} partial of keys, {tiling.longest} in the longest program"
    )


def _tile_cost(cost: Cost) -> Iterator[str]:
    """The tile that was chosen, why, what it does; and the others."""
    yield f"    {_time(cost.microseconds)} with {cost.tile}: {BOUNDS[cost.bound]}"
    yield f"      why: {cost.reason}"
    launches = _count(cost.launches, "launch", "launches")
    programs = f"{_count(cost.programs, 'program')}, {cost.resident} at once a processor"
    work = f"{_scaled(cost.flops, 1000)}FLOP, {_scaled(cost.loaded, 1024)}B of keys and values loaded"
    yield f"      {launches}, {programs}, {work}, {_scaled(cost.moved, 1024)}B moved"
    for one in cost.candidates[1:]:
        yield f"      {_time(one.microseconds)} with {one.tile}"


def _time(microseconds: float) -> str:
    """Three digits: `12.3 us`, `1.23 ms`."""
    if microseconds < 1000:
        return f"{microseconds:.3g} us"
    return f"{microseconds / 1000:.3g} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.3g} s"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _percent(fraction: float) -> str:
    """Three digits that matter: 6.17%, 0.000412%."""
    return f"{100 * fraction:.3g}%"


def _scaled(value: float, unit: int) -> str:
    """`4.29 G`."""
    names = ("", "K", "M", "G", "T", "P", "E")
    power = 0
    while value >= unit and power < len(names) - 1:
        value, power = value / unit, power + 1
    letter = names[power] + ("i" if unit == 1024 and power else "")
    return f"{value:.3g} {letter}" if value < 1000 else f"{value:.0f} {letter}"
