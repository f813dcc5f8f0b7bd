"""What a pattern means, and what it costs at given lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from spattn.analysis.calls import Call
from spattn.analysis.explanation import Explanation, Group
from spattn.analysis.machine import device_here
from spattn.analysis.pairs import allowed_pairs, known_formula
from spattn.analysis.plans import Asked, groups
from spattn.analysis.remarks import remarks
from spattn.errors import SpattnError
from spattn.expressions.text import text
from spattn.pattern import Pattern
from spattn.relation.terms import disjunction

T = TypeVar("T")


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
    condition, names = pattern.condition, pattern.free_names
    asked = Call(q_len, q_len if kv_len is None else kv_len, num_heads, batch_size, dict(tensors or {}))
    call = asked if tensors else asked.with_samples(condition, names)
    tiled = asked if tensors else asked.shortened(condition, names)
    pairs = allowed_pairs(condition, call)
    device = device_here()
    parts = groups(condition, Asked(call, tiled, head_dim, device))
    costs = [one.cost for group in parts for one in group.passes if one.cost is not None]
    found = known_formula(condition)
    return Explanation(
        pattern=str(pattern),
        meaning=text(condition),
        terms=tuple(text(term.condition) for term in disjunction(condition) or ()),
        free_names=tuple(names.items()),
        dead_terms=_decided(pattern.dead_terms),
        empty_row=_decided(lambda: _empty_row(pattern)),
        q_len=call.q_len,
        kv_len=call.kv_len,
        num_heads=num_heads,
        batch_size=batch_size,
        head_dim=head_dim,
        pairs=pairs,
        density=None if pairs is None else pairs / max(call.q_len * call.kv_len * call.entries, 1),
        formula=None if found is None else str(found),
        sampled=bool(names) and not tensors,
        tiled_len=(tiled.q_len, tiled.kv_len),
        computed=_computed(parts, allowed_pairs(condition, tiled)),
        flops=None if pairs is None else 4 * head_dim * pairs,
        bytes=4 * call.entries * head_dim * (call.q_len + call.kv_len),
        device=device.name,
        microseconds=round(sum(cost.microseconds for cost in costs), 3),
        launches=sum(cost.launches for cost in costs),
        groups=parts,
        remarks=remarks(pattern),
        backend=backend,
    )


def _decided(question: Callable[[], T]) -> T | None:
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


def _computed(parts: tuple[Group, ...], allowed: int | None) -> float | None:
    """Pairs that the chosen tiles compute for each allowed one."""
    if not allowed:
        return None
    return sum(group.members * one.tiling.pairs for group in parts for one in group.passes) / allowed
