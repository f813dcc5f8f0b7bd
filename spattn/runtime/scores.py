"""The float tensors of a score at a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from spattn.errors import ArgumentError, BindError
from spattn.runtime.tensors import require_tensor
from spattn.scores.nodes import Score
from spattn.scores.words import reads


def floats_of(score: Score, tensors: Mapping[str, object], q: Tensor) -> dict[str, Tensor]:
    """The tensors that a score reads, in its order.

    Args:
        score: The score.
        tensors: What the call gives by name.
        q: Of the call.

    Raises:
        ArgumentError: E060, one is no float tensor on q's device with as many dimensions as it has indices.
        BindError: E030, one is missing.
    """
    found = {}
    for name, rank in reads(score).items():
        if tensors.get(name) is None:
            hint = f"call attn(q, k, v, {name}=tensor)"
            raise BindError("E030", f"the score needs {name} (float tensor)", hint=hint)
        require_tensor(name, tensors[name])
        found[name] = cast(Tensor, tensors[name])
        _check(name, found[name], rank, q)
    return found


def _check(name: str, one: Tensor, rank: int, q: Tensor) -> None:
    if not one.is_floating_point():
        raise ArgumentError("E060", f"{name} is {one.dtype}; a score's tensors are of a float dtype")
    if one.device != q.device:
        raise ArgumentError("E060", f"{name} is on {one.device} and q on {q.device}")
    if one.numel() == 0 or (one.dim() != rank if rank else one.numel() != 1):
        wanted = f"{rank} dimensions, none empty" if rank else "one element"
        raise ArgumentError("E060", f"{name} has shape {list(one.shape)}; the score reads it with {wanted}")
