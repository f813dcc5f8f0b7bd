"""What a pattern means, pair by pair, and attention over exactly those pairs. Slow, dense and plain."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from spattn.errors import ArgumentError, UnsupportedError
from spattn.expressions.algebra import subexpressions
from spattn.expressions.evaluation import BoolArray, evaluate
from spattn.expressions.nodes import Bool, GivenTable, InTable, Member, RandomTable, Read, Relative, SameSegment, Sym
from spattn.expressions.tensors import Tensors
from spattn.frontend.meaning import free_names, meaning
from spattn.frontend.syntax import Node

if TYPE_CHECKING:
    from torch import Tensor

MAX_PAIRS = 2**30
"""Of a mask; while it is made each pair takes some 20 bytes."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def mask(
    node: Node,
    q_len: int,
    kv_len: int,
    *,
    q_offset: int | None = None,
    num_heads: int = 1,
    batch_size: int = 1,
    tensors: Mapping[str, Any] = _NOTHING,
) -> BoolArray:
    """The allowed pairs.

    Args:
        node: The pattern.
        q_len: Number of queries.
        kv_len: Number of keys.
        q_offset: Position of the first query; the last query stands at the last key where it is not given.
        num_heads: Number of query heads.
        batch_size: Number of batch entries.
        tensors: An array for each of the pattern's free names.

    Returns:
        `[q_len, kv_len]`, or `[batch_size, num_heads, q_len, kv_len]` where heads or batch entries may differ.

    Raises:
        SpattnError: A tensor is missing or does not fit; E094, there are more than MAX_PAIRS pairs.
    """
    condition = meaning(node)
    given = Tensors(tensors, kv_len, batch_size, num_heads, q_len)
    given.require(free_names(node))
    first = kv_len - q_len if q_offset is None else q_offset
    env: dict[str, Any] = {"kv_len": kv_len, "num_heads": num_heads, "batch_size": batch_size, "h": 0, "b": 0}
    _check_size(q_len * kv_len * (batch_size * num_heads if is_spread(condition, given) else 1))
    env |= {"q_offset": first, "q": first + np.arange(q_len)[:, None], "k": np.arange(kv_len)[None, :]}
    shape: tuple[int, ...] = (q_len, kv_len)
    if is_spread(condition, given):
        env |= {"h": np.arange(num_heads)[:, None, None], "b": np.arange(batch_size)[:, None, None, None]}
        shape = (batch_size, num_heads, *shape)
    return np.broadcast_to(evaluate(condition, env, given), shape).copy()


def _check_size(pairs: int) -> None:
    if pairs > MAX_PAIRS:
        message = f"a mask of {pairs} pairs is not built: the limit is {MAX_PAIRS}"
        raise UnsupportedError("E094", message, hint="count, density and why look at pairs without a mask")


def is_spread(condition: Bool, tensors: Tensors) -> bool:
    """May `condition` differ between heads or batch entries?"""
    for part in subexpressions(condition):
        match part:
            case Sym("h" | "b") | InTable(RandomTable(), _, _):
                return True
            case InTable(GivenTable(tensor), _, _) if tensors.leading(tensor, 2):
                return True
            case Read(tensor, index) if tensors.leading(tensor, len(index)):
                return True
            case Member(_, tokens, _) if any(tensors.leading(name, 1) for name in tokens.tensors):
                return True
            case SameSegment() | Relative() if tensors.documents_leading(part.documents):
                return True
    return False


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Attention in float64 over the allowed pairs alone.

    Args:
        q: `[batch, num_q_heads, q_len, head_dim]`.
        k: `[batch, num_kv_heads, kv_len, head_dim]`.
        v: `[batch, num_kv_heads, kv_len, head_dim_v]`.
        mask: Allowed pairs, `[q_len, kv_len]` or with batch and heads before.
        scale: Factor of the scores; 1/sqrt(head_dim) where it is not given.

    Returns:
        `out [batch, num_q_heads, q_len, head_dim_v]` and `lse [batch, num_q_heads, q_len]` (natural log), float64. A
        row without keys gives 0 and -inf; values of keys that are not allowed never matter.
    """
    import torch

    batch, num_q_heads, q_len, head_dim = q.shape
    if num_q_heads % k.shape[1]:
        raise ArgumentError("E060", f"k has {k.shape[1]} heads, which does not divide q's {num_q_heads}")
    k, v = (x.double().repeat_interleave(num_q_heads // k.shape[1], 1) for x in (k, v))
    allowed = torch.as_tensor(mask, device=q.device).expand(batch, num_q_heads, q_len, k.shape[2])
    scores = q.double() @ k.transpose(-1, -2) * (1 / sqrt(head_dim) if scale is None else scale)
    scores = torch.where(allowed, scores, -torch.inf)
    lse = scores.logsumexp(-1)
    weights = torch.where(allowed, (scores - lse.unsqueeze(-1)).exp(), 0.0)
    return _combine(weights, allowed, v), lse


def _combine(weights: Tensor, allowed: Tensor, v: Tensor) -> Tensor:
    """`weights @ v` where 0 * nan of a pair that is not allowed counts 0, and that of an allowed one nan."""
    import torch

    finite = torch.where(v.isfinite(), v, 0.0)
    out = weights @ finite
    odd = torch.where(v.isfinite(), 0.0, v)
    for key in (~v.isfinite()).any(-1).any(0).any(0).nonzero().flatten().tolist():
        pair = weights[..., key, None] * odd[..., key, None, :]
        touched = allowed[..., key, None] & ~v[..., key, None, :].isfinite()
        out = out + torch.where(touched, pair, 0.0)
    return out
