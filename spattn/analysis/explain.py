"""What a pattern means, and what it costs at given lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from spattn.analysis.calls import Call
from spattn.analysis.explanation import Cost, Explanation, Group
from spattn.analysis.machine import device_here
from spattn.analysis.pairs import allowed_pairs, known_formula
from spattn.analysis.plans import About, groups
from spattn.analysis.remarks import remarks
from spattn.attend import Attention
from spattn.call.positions import Numbers, check_missing_keys, placed, refused
from spattn.call.shape import Shape
from spattn.errors import ArgumentError, SpattnError
from spattn.expressions.text import text
from spattn.gpu.limits import beyond
from spattn.pattern import Pattern
from spattn.relation.terms import disjunction

T = TypeVar("T")


def explain(attn: Attention, shape: Shape, tensors: Mapping[str, Any], missing_keys: str = "refuse") -> Explanation:
    """What a pattern means, and what a call of this shape costs.

    Args:
        attn: The pattern, compiled.
        shape: Of the call.
        tensors: The free names; example tensors stand in if none is given.
        missing_keys: What becomes of a row that attends a key which is not given: "refuse" or "ignore".

    Raises:
        ArgumentError: E060, the heads of k and v do not divide those of q, or a row attends such a key.
        UnsupportedError: E096, whether one does takes too long to find.
    """
    pattern = attn.pattern
    condition, names = pattern.condition, pattern.free_names
    _heads_fit(shape)
    check_missing_keys(missing_keys)
    if missing_keys == "refuse":
        _refuse_missing_keys(attn, shape)
    served, refusal = _served(attn.backend, shape)
    asked = Call(shape, dict(tensors))
    call = asked if tensors else asked.with_samples(condition, names)
    tiled = asked if tensors else asked.shortened(condition, names)
    pairs = allowed_pairs(condition, call)
    device = device_here()
    parts = groups(attn, About(call, tiled, device), in_triton=served == "triton")
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
        q_offset=call.q_offset,
        k_offset=call.given[0],
        num_keys=call.num_keys,
        num_heads=shape.num_q_heads,
        num_kv_heads=shape.num_kv_heads,
        batch_size=shape.batch_size,
        head_dim=shape.head_dim,
        v_head_dim=shape.v_head_dim,
        dtype=shape.dtype,
        pairs=pairs,
        density=None if pairs is None else pairs / max(call.q_len * call.num_keys * call.entries, 1),
        formula=None if found is None else str(found),
        sampled=bool(names) and not tensors,
        tiled_len=(tiled.q_len, tiled.num_keys),
        tiled_kv_len=tiled.kv_len,
        computed=_computed(parts, allowed_pairs(condition, tiled)),
        flops=None if pairs is None else 2 * (shape.head_dim + shape.v_head_dim) * pairs,
        bytes=_bytes(shape),
        device=device.name,
        microseconds=round(sum(map(_microseconds, parts)), 3),
        launches=sum(cost.launches for group in parts for cost in _costs(group)),
        groups=parts,
        remarks=remarks(pattern),
        backend=attn.backend,
        served=served,
        refusal=refusal,
        tune=attn.tune,
    )


def _heads_fit(shape: Shape) -> None:
    if shape.num_q_heads % shape.num_kv_heads:
        raise ArgumentError(
            "E060",
            f"k has {shape.num_kv_heads} heads, which do not divide q's {shape.num_q_heads}",
            hint="with GQA num_q_heads is a multiple of num_kv_heads",
        )


def _refuse_missing_keys(attn: Attention, shape: Shape) -> None:
    """Refuses what a call does."""
    if shape.given == (0, shape.kv_len):
        return
    said = Numbers(shape.q_offset, shape.k_offset, shape.kv_len)
    at = placed(said, (), shape.q_len, shape.num_keys)
    pair = attn.missing_key(at, shape.num_q_heads, shape.batch_size)
    if pair is not None:
        raise refused(at, pair)


def _served(backend: str, shape: Shape) -> tuple[str | None, str | None]:
    """Who serves such a call where there is a GPU, and why Triton does not."""
    why = beyond(shape)
    if backend == "torch" or why is None:
        return ("torch" if backend == "torch" else "triton"), why
    return ("torch" if backend == "auto" else None), why


def _bytes(shape: Shape) -> int:
    """q, k, v and out once."""
    rows = shape.num_q_heads * shape.q_len + shape.num_kv_heads * shape.num_keys
    return shape.itemsize * shape.batch_size * rows * (shape.head_dim + shape.v_head_dim)


def _costs(group: Group) -> list[Cost]:
    return [one.cost for one in group.passes if one.cost is not None]


def _microseconds(group: Group) -> float:
    return sum(cost.microseconds for cost in _costs(group)) if group.measured is None else group.measured


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
    tilings = [(group.members, one.tiling) for group in parts for one in group.passes if one.tiling]
    if not allowed or not tilings:
        return None
    return sum(members * tiling.pairs for members, tiling in tilings) / allowed
