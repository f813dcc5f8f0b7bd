"""`spattn::fwd`, `spattn::bwd`, `spattn::bwd_bwd`: attention as torch traces it, compiles it, exports it.

A graph that holds them may be read in another process, so each carries its plan as text. Eager calls take a shorter
way to the same kernels; only where something wants to see an operator do they come here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spattn.call.positions import BY_REQUEST, USUAL, Numbers, out_strides
from spattn.errors import ArgumentError

if TYPE_CHECKING:
    from spattn.runtime.execution import Arguments, Calls

LIBRARY: Any = torch.library.Library("spattn", "DEF")  # type: ignore[no-untyped-call]
# tensors of pattern and score in the plan's order are followed by those of positions, whose names `by_request` lists
_NUMBERS = "SymInt? q_offset, SymInt? k_offset, SymInt? kv_len, SymInt? max_seqlen_q, SymInt? max_seqlen_k"
_CALL = f"Tensor[] tensors, str plan, float? scale, {_NUMBERS}, str missing_keys, str by_request"
LIBRARY.define(f"fwd(Tensor q, Tensor k, Tensor v, {_CALL}) -> (Tensor out, Tensor lse)")
LIBRARY.define(
    "bwd(Tensor? d_out, Tensor? d_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    f"{_CALL}, bool[] wanted) -> (Tensor dq, Tensor dk, Tensor dv, Tensor[] d_floats)"
)
# what it answers are derivatives of its tensors from d_out on, in their order
LIBRARY.define(
    "bwd_bwd(Tensor? g_q, Tensor? g_k, Tensor? g_v, Tensor? d_out, Tensor? d_lse, Tensor q, Tensor k, Tensor v, "
    f"Tensor out, Tensor lse, {_CALL}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
FORWARD, BACKWARD = torch.ops.spattn.fwd.default, torch.ops.spattn.bwd.default
SECOND = torch.ops.spattn.bwd_bwd.default

_calls_of: Callable[[str], Calls]


def serve(calls_of: Callable[[str], Calls]) -> None:
    """Says how the text of a plan becomes calls; to be quick where it has been asked before."""
    global _calls_of
    _calls_of = calls_of


def reads_batch(plan: str) -> bool:
    """Does the pattern of a plan, one of its tensors perhaps, or its score tell batch entries apart?"""
    return _calls_of(plan).reads_batch


def floats_of(plan: str) -> range:
    """The places of a score's tensors among those of the plan."""
    return _calls_of(plan).floats


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tensors: Sequence[Tensor],
    plan: str,
    scale: float | None,
    numbers: Numbers = USUAL,
    by_request: tuple[str, ...] = (),
) -> tuple[Tensor, Tensor]:
    """(out, lse) by the operator, differentiable.

    Args:
        q: `[batch, num_q_heads, q_len, head_dim]`.
        k: `[batch, num_kv_heads, num_keys, head_dim]`.
        v: `[batch, num_kv_heads, num_keys, v_head_dim]`.
        tensors: Those of pattern and score, in the plan's order, then those that `by_request` names.
        plan: The text of a `Plan`.
        scale: Of the scores; 1/sqrt(head_dim) if None.
        numbers: Where rows and keys stand, in numbers.
        by_request: Names of tensors that say it.
    """
    out, lse = FORWARD(q, k, v, tensors, plan, scale, *numbers, " ".join(by_request))
    return out, lse


def _fwd(*given: Any) -> tuple[Tensor, Tensor]:
    calls, arguments = _called(*given)
    return calls.answer(arguments)


def _fake_fwd(*given: Any) -> tuple[Tensor, Tensor]:
    calls, arguments = _called(*given)
    calls.chosen(calls.request(arguments))
    q, shape = arguments.q, (*arguments.q.shape[:3], arguments.v.shape[3])
    strides = out_strides(shape, packed="cu_seqlens_q" in arguments.tensors)
    return q.new_empty_strided(shape, strides), q.new_empty(q.shape[:3], dtype=_of_lse(q))


def _bwd(
    d_out: Tensor | None, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *given: Any
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    tensors, *rest, wanted = given
    _check(q, v, {"out": out, "d_out": d_out}, {"lse": lse, "d_lse": d_lse})
    calls, arguments = _called(q, k, v, tensors, *rest)
    _check_wanted(calls, wanted)
    saved = q, k, v, out.contiguous(), lse.contiguous()
    prepared = calls.request(arguments).tensors
    found = calls.differentiable(arguments).backward(saved, prepared, d_out, d_lse, tuple(wanted))
    dq, dk, dv = _filled(q, found[:3])
    floats = [tensors[i] for i in calls.floats]
    return dq, dk, dv, [x.new_empty(0) if one is None else one for x, one in zip(floats, found[3:], strict=True)]


def _fake_bwd(
    d_out: Tensor | None, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *given: Any
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    tensors, *rest, wanted = given
    _check(q, v, {"out": out, "d_out": d_out}, {"lse": lse, "d_lse": d_lse})
    calls, arguments = _called(q, k, v, tensors, *rest)
    _check_wanted(calls, wanted)
    dq, dk, dv = _filled(q, calls.new_differentiable(arguments).unwritten(q, k, v, tuple(wanted)))
    floats = [tensors[i] for i in calls.floats]
    return dq, dk, dv, [x.new_empty(x.shape if asked else 0) for x, asked in zip(floats, wanted[3:], strict=True)]


def _bwd_bwd(*given: Any) -> tuple[Tensor, ...]:
    calls, arguments, (upstream, (d_out, d_lse), results) = _called_twice(*given)
    saved = (*arguments[:3], *(x.contiguous() for x in results))
    prepared = calls.request(arguments).tensors
    return calls.differentiable(arguments).second(saved, prepared, d_out, d_lse, upstream)


def _fake_bwd_bwd(*given: Any) -> tuple[Tensor, ...]:
    calls, arguments, (_, _, (out, lse)) = _called_twice(*given)
    calls.request(arguments)
    return tuple(x.new_empty(x.shape) for x in (out, lse, *arguments[:3], out, lse))


def _called_twice(*given: Any) -> tuple[Calls, Arguments, tuple[Any, ...]]:
    """The call, and (g_q, g_k, g_v), (d_out, d_lse), (out, lse)."""
    *upstream, d_out, d_lse, q, k, v, out, lse = given[:10]
    _check(q, v, {"out": out, "d_out": d_out}, {"lse": lse, "d_lse": d_lse})
    for name, one, like in zip(("g_q", "g_k", "g_v"), upstream, (q, k, v), strict=True):
        _fits(name, one, like.shape, q.dtype, q.device)
    return *_called(q, k, v, *given[10:]), (tuple(upstream), (d_out, d_lse), (out, lse))


def _called(
    q: Tensor, k: Tensor, v: Tensor, tensors: Sequence[Tensor], plan: str, scale: float | None, *at: Any
) -> tuple[Calls, Arguments]:
    calls, (*numbers, by_request) = _calls_of(plan), at
    return calls, calls.arguments(q, k, v, tensors, scale, Numbers(*numbers), _named(by_request))


def _named(by_request: str) -> tuple[str, ...]:
    """The names of tensors of positions; a graph may have been written by anyone."""
    names = tuple(by_request.split())
    if len({*names}) != len(names) or not {*names} <= {*BY_REQUEST}:
        raise ArgumentError("E060", f"{by_request!r} names no tensors of positions", hint=", ".join(BY_REQUEST))
    return names


def _of_lse(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _filled(q: Tensor, found: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """An operator has to answer tensors: what nobody asked for is empty."""
    return tuple(q.new_empty(0) if one is None else one for one in found)


def _check(q: Tensor, v: Tensor, wide: dict[str, Tensor | None], rows: dict[str, Tensor | None]) -> None:
    """A graph may have been written by anyone: no kernel is given a tensor of another shape than it reads."""
    for given, shape, dtype in ((wide, (*q.shape[:3], v.shape[3]), q.dtype), (rows, q.shape[:3], _of_lse(q))):
        for name, one in given.items():
            _fits(name, one, shape, dtype, q.device)


def _check_wanted(calls: Calls, wanted: Sequence[bool]) -> None:
    count = 3 + len(calls.floats)
    if len(wanted) != count:
        raise ArgumentError("E060", f"wanted has {len(wanted)} entries, and the plan {count} gradients")


def _fits(name: str, one: Tensor | None, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
    if one is not None and (one.shape != shape or one.dtype != dtype or one.device != device):
        found = f"{list(one.shape)}, {one.dtype} on {one.device}"
        raise ArgumentError("E060", f"{name} is {found}, not {list(shape)}, {dtype} on {device}")


_KERNELS = ("fwd", _fwd, _fake_fwd), ("bwd", _bwd, _fake_bwd), ("bwd_bwd", _bwd_bwd, _fake_bwd_bwd)
for _name, _real, _fake in _KERNELS:
    LIBRARY.impl(_name, _real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"spattn::{_name}", _fake, lib=LIBRARY)
