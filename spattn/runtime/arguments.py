"""Tensors checked before anything is launched; an error names the shapes that do not fit."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from spattn.call.positions import BY_REQUEST, USUAL, Numbers, Positions, placed
from spattn.call.prepared import Prepared
from spattn.call.request import Request
from spattn.call.shape import dtype_name
from spattn.errors import ArgumentError, BindError
from spattn.expressions.nodes import MAX_BITS
from spattn.expressions.width import FIRST, LONGEST
from spattn.frontend.reserved import refuse_dropout
from spattn.runtime.placing import check_positions
from spattn.runtime.scores import check_floats
from spattn.runtime.tensors import require_tensor
from spattn.scores.nodes import Score

FLOATS = "float tensor"
"""The role of what a score reads."""


def checked(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None,
    tf32: bool,
    roles: Mapping[str, str],
    tensors: Mapping[str, object],
    shared: Prepared | None = None,
    said: Numbers = USUAL,
    score: Score | None = None,
) -> Request:
    """The request of a call.

    Args:
        q: `[batch, num_q_heads, q_len, head_dim]`.
        k: `[batch, num_kv_heads, num_keys, head_dim]`.
        v: `[batch, num_kv_heads, num_keys, v_head_dim]`.
        scale: Factor of the scores, 1/sqrt(head_dim) if None.
        tf32: May float32 products use TF32?
        roles: The free names of pattern and score, and what each is.
        tensors: What the call gives for them, and for positions, by the names in `BY_REQUEST`.
        shared: What was prepared of them before.
        said: What it says of positions in numbers.
        score: What becomes of the scores.

    Raises:
        ArgumentError: Shapes, dtypes, devices or lengths do not fit each other.
        BindError: A tensor is missing or one too many.
    """
    _same_kind(q, k, v)
    _shapes_fit(q, k, v)
    if isinstance(scale, float) and not math.isfinite(scale):
        raise ArgumentError("E060", f"scale is {scale}; it is a finite number")
    at, batch_size = _placed(said, tensors, q, k)
    every = {**roles, **dict.fromkeys(at.by_request, "positions")}
    given = named(every, tensors, shared, q.device)
    check_given(every, given, score, batch_size, q.shape[1], at)
    return Request(
        q=_rows_contiguous(q),
        k=_rows_contiguous(k),
        v=_rows_contiguous(v),
        scale=1 / math.sqrt(q.shape[3]) if scale is None and q.shape[3] else float(scale or 0.0),
        positions=at,
        tensors=given,
        tf32=tf32,
        score=score,
    )


def check_given(
    roles: Mapping[str, str],
    given: Mapping[str, torch.Tensor],
    score: Score | None,
    batch_size: int,
    num_q_heads: int,
    at: Positions,
) -> None:
    """Refuses tensors of pattern and score that do not fit a call.

    Args:
        roles: What each is.
        given: By name.
        score: What becomes of the scores.
        batch_size: Batch entries, or requests.
        num_q_heads: Query heads.
        at: Where rows and keys stand.

    Raises:
        ArgumentError: E060, shapes or values do not fit.
    """
    sizes = _Sizes(batch_size, num_q_heads, at)
    for name, tensor in given.items():
        _role_fits(name, roles[name], tensor, sizes)
        _values_fit(name, roles[name], tensor)
    _same_drafts({name: one for name, one in given.items() if roles[name].startswith("draft ")})
    if score is not None:
        check_floats(score, given)


@dataclass(frozen=True)
class _Sizes:
    """What shapes of the pattern's tensors are compared with."""

    batch_size: int
    num_q_heads: int
    at: Positions


def _placed(said: Numbers, tensors: Mapping[str, Any], q: torch.Tensor, k: torch.Tensor) -> tuple[Positions, int]:
    """Where rows and keys stand, and how many requests there are."""
    by_request = tuple(name for name in BY_REQUEST if name in tensors)
    batch_size = q.shape[0]
    if "cu_seqlens_q" in by_request:
        batch_size = max(tensors["cu_seqlens_q"].numel() - 1, 0)
    given = {name: tensors[name] for name in by_request}
    check_positions(said, given, q, k, batch_size, on_gpu=checks_values())
    at = placed(said, by_request, q.shape[2], k.shape[2])
    ends = ("q_offset", at.q_offset), ("q_offset + q_len", at.q_offset + at.q_len), ("k_offset", at.k_offset)
    for name, end in (("kv_len", at.kv_len), *ends):
        if isinstance(end, int) and not FIRST <= end < LONGEST:  # one that is traced is looked at when it is known
            raise ArgumentError("E094", f"{name} is {end}; positions are from {FIRST} to {LONGEST}")
    return at, batch_size


def _same_kind(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        require_tensor(name, tensor)
        if tensor.dim() != 4:
            raise ArgumentError("E060", f"{name} has shape {list(tensor.shape)}, not [batch, heads, seq, head_dim]")
        if tensor.dtype != q.dtype:
            raise ArgumentError("E060", f"{name} is {tensor.dtype} and q is {q.dtype}", hint="give all three one dtype")
        if tensor.device != q.device:
            raise ArgumentError("E060", f"{name} is on {tensor.device} and q on {q.device}")
    dtype_name(q.dtype)


def _shapes_fit(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
    if not q.shape[0] == k.shape[0] == v.shape[0]:
        raise ArgumentError("E060", f"batch sizes differ: {shapes}")
    if q.shape[3] != k.shape[3]:
        raise ArgumentError("E060", f"q and k differ in head_dim, {q.shape[3]} and {k.shape[3]}: {shapes}")
    if k.shape[1:3] != v.shape[1:3]:
        raise ArgumentError("E060", f"k and v differ in heads or length: {shapes}")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ArgumentError(
            "E060",
            f"k has {k.shape[1]} heads, which do not divide q's {q.shape[1]}: {shapes}",
            hint="with GQA num_q_heads is a multiple of num_kv_heads",
        )


def named(
    roles: Mapping[str, str], tensors: Mapping[str, object], shared: Prepared | None, device: torch.device
) -> Prepared:
    """The pattern's tensors, as tensors on `device`.

    Raises:
        ArgumentError: One is elsewhere.
        BindError: One is missing, too many, or of another kind of numbers.
    """
    refuse_dropout(tensors)
    every = {**(shared or {}), **tensors}
    missing = [name for name in roles if every.get(name) is None]
    if missing:
        what = ", ".join(f"{name} ({roles[name]})" for name in missing)
        what += ", and is given None" if missing[0] in tensors else ""
        who = "score" if roles[missing[0]] == FLOATS else "pattern"
        raise BindError("E030", f"the {who} needs {what}", hint=f"call attn(q, k, v, {missing[0]}=tensor)")
    twice = [name for name in tensors if shared is not None and name in shared]
    if twice:
        raise BindError("E038", f"{twice[0]} is given, and prepared too", hint=f"leave out {twice[0]}=")
    found = as_tensors(roles, every, device)
    return Prepared({name: found[name] for name in tensors}, shared)


def as_tensors(
    roles: Mapping[str, str], tensors: Mapping[str, object], device: torch.device | None
) -> dict[str, torch.Tensor]:
    """What is given for names of the pattern, as tensors on `device`; on their own where that is None.

    Raises:
        ArgumentError: One is elsewhere.
        BindError: One is too many, or of another kind of numbers.
        UnsupportedError: One is no tensor of a pattern, but dropout.
    """
    refuse_dropout(tensors)
    extra = [name for name in tensors if name not in roles]
    if extra:
        known = f"it reads {', '.join(roles)}" if roles else "it reads none"
        raise BindError("E038", f"the pattern reads no tensor {extra[0]}", hint=known)
    return {name: _tensor(name, value, device, roles[name]) for name, value in tensors.items()}


def _tensor(name: str, value: object, device: torch.device | None, role: str) -> torch.Tensor:
    tensor = value if isinstance(value, torch.Tensor) else _as_tensor(name, value)
    require_tensor(name, tensor)
    if role == FLOATS:
        if not tensor.is_floating_point():
            raise ArgumentError("E060", f"{name} is {tensor.dtype}; a score's tensors are of a float dtype")
    elif tensor.is_floating_point() or tensor.is_complex():
        raise BindError("E031", f"{name} is {tensor.dtype}; a pattern's tensors hold integers or truth values")
    if device is not None and tensor.device != device:
        if isinstance(value, torch.Tensor):
            raise ArgumentError("E060", f"{name} is on {tensor.device} and q on {device}")
        return tensor.to(device)
    return tensor


def _as_tensor(name: str, value: object) -> torch.Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        what = f"{name} is a {type(value).__name__} of which torch makes no tensor"
        raise BindError("E031", what, hint="give integers or truth values") from None


def _role_fits(name: str, role: str, tensor: torch.Tensor, sizes: _Sizes) -> None:
    """Shapes that say at once that a tensor is not what the pattern reads."""
    batch, heads, q_len, kv_len = sizes.batch_size, sizes.num_q_heads, sizes.at.q_len, sizes.at.kv_len
    problem = hint = ""
    match role:
        case "documents" | "query documents" if sizes.at.by_request:
            if tensor.dim() not in (1, 2) or tensor.shape[0] not in (tensor.shape[-1], batch):
                problem = f"ids of positions, [n] or [batch, n] = [{batch}, n]"
        case "documents" if tensor.shape not in ((kv_len,), (batch, kv_len)):
            problem = f"ids [kv_len] = [{kv_len}] or [batch, kv_len] = [{batch}, {kv_len}]"
            hint = "cumulative lengths are written segments(..)" if tensor.dim() == 1 else ""
        case "query documents" if tensor.shape not in ((q_len,), (batch, q_len)):
            problem = f"ids of queries [q_len] = [{q_len}] or [batch, q_len] = [{batch}, {q_len}]"
        case "segments" if tensor.dim() != 1 or not tensor.shape[0]:
            problem = "cumulative lengths [documents + 1]"
        case "lengths" if tensor.dim() > 1 or (tensor.dim() == 1 and tensor.shape[0] not in (1, batch)):
            problem = f"one number, or [batch] = [{batch}]"
        case "tokens" if tensor.dim() > 2 or (tensor.dim() == 2 and tensor.shape[0] not in (1, batch)):
            problem = f"positions [n] or [batch, n] = [{batch}, n]"
        case "blocks" if not 2 <= tensor.dim() <= 4:
            problem = "a table [query blocks, key blocks], with batch and heads before if they matter"
        case "blocks" if any(
            size not in (1, whole) for size, whole in zip(tensor.shape[:-2], (batch, heads), strict=False)
        ):
            problem = f"a table whose first dimensions are batch = {batch} and heads = {heads}"
        case "block lists" if not 2 <= tensor.dim() <= 4 or 0 in tensor.shape[-2:]:
            problem = "lists of blocks [query blocks, 1 + n], with batch and heads before if they matter"
        case "block lists" if any(
            size == 0 or whole % size if i else size not in (1, whole)
            for i, (size, whole) in enumerate(zip(tensor.shape[:-2], (batch, heads), strict=False))
        ):
            problem = f"lists whose first dimensions are batch = {batch} and heads, which divide {heads}"
        case "draft ancestors" | "draft depths" if (
            tensor.dim() not in (1, 2)
            or not 1 <= tensor.shape[-1] <= MAX_BITS
            or tensor.dim() == 2
            and tensor.shape[0] not in (1, batch)
        ):
            problem = f"a number for each of 1 to {MAX_BITS} drafted tokens, [m] or [batch, m] = [{batch}, m]"
    if problem:
        raise ArgumentError("E060", f"{name} has shape {list(tensor.shape)}; it is {problem}", hint=hint)


def _same_drafts(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuses what tells of different numbers of drafted tokens."""
    if len({one.shape[-1] for one in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {list(one.shape)}" for name, one in tensors.items())
        raise ArgumentError("E060", f"the drafted tokens are as many in all tensors, not {shapes}")


def checks_values() -> bool:
    """Are values on a GPU checked too, though that waits for it? `SPATTN_CHECK=values` asks for it."""
    return os.environ.get("SPATTN_CHECK") == "values"


def _values_fit(name: str, role: str, tensor: torch.Tensor) -> None:
    """What a tensor on a CPU holds, or on a GPU by the user's word; one that is traced holds nothing yet."""
    if type(tensor) is not torch.Tensor or tensor.is_meta or not (tensor.device.type == "cpu" or checks_values()):
        return
    if role == "segments" and bool((tensor[1:] < tensor[:-1]).any()):
        message = f"the cumulative lengths {name} descend"
        raise ArgumentError("E060", message, hint="document i is the positions cu[i] .. cu[i+1]-1")
    if role == "block lists" and not _are_lists(tensor):
        message = f"the lists {name} do not hold how many blocks there are, then these, ascending"
        raise ArgumentError("E060", message, hint="of the blocks 3 and 5 a list is [2, 3, 5, -1, ..]")


def _are_lists(lists: torch.Tensor) -> bool:
    """Does each hold a count that fits it, then as many blocks, each once and ascending?"""
    counts, blocks = lists[..., :1], lists[..., 1:]
    width = blocks.shape[-1]
    listed = torch.arange(width, device=lists.device) < counts
    before = torch.cat((torch.full_like(counts, -1), blocks), -1)[..., :width]
    return bool(((counts >= 0) & (counts <= width)).all() and (~listed | (before < blocks)).all())


def _rows_contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """Rows that the kernels can read: the last dimension dense."""
    if tensor.stride(-1) == 1 or tensor.shape[-1] == 1:
        return tensor
    raise ArgumentError(
        "E060", f"a row of strides {tensor.stride()} is not dense in its last dimension", hint="call .contiguous()"
    )
