"""What a pattern means, pair by pair, and attention over exactly those pairs. Slow, dense and plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from spattn.errors import ArgumentError, UnsupportedError
from spattn.expressions.algebra import subexpressions
from spattn.expressions.evaluation import BoolArray, evaluate
from spattn.expressions.nodes import (
    BitTable,
    Bool,
    GivenTable,
    InTable,
    ListedTable,
    Member,
    RandomTable,
    Read,
    Relative,
    SameSegment,
    Sym,
)
from spattn.expressions.tensors import Tensors
from spattn.frontend.meaning import free_names, meaning
from spattn.frontend.syntax import Node

if TYPE_CHECKING:
    from torch import Tensor

    from spattn.scores.nodes import Score

MAX_PAIRS = 2**30
"""Of a mask; while it is made each pair takes some 20 bytes."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def mask(
    node: Node,
    q_len: int,
    kv_len: int,
    *,
    q_offset: int | None = None,
    k_offset: int = 0,
    num_keys: int | None = None,
    num_heads: int = 1,
    batch_size: int = 1,
    tensors: Mapping[str, Any] = _NOTHING,
    only: int | None = None,
) -> BoolArray:
    """The allowed pairs of rows and given keys.

    Args:
        node: The pattern.
        q_len: Number of queries.
        kv_len: Number of keys of the whole.
        q_offset: Position of the first query; the last query stands at the last key where it is not given.
        k_offset: Position of the first key that is given.
        num_keys: How many are given; up to the last of the whole where it is not said.
        num_heads: Number of query heads.
        batch_size: Number of batch entries.
        tensors: An array for each of the pattern's free names.
        only: The one batch entry of which these are the lengths; lists of ids may then be longer than these.

    Returns:
        `[q_len, num_keys]`, or `[batch_size, num_heads, q_len, num_keys]` where heads or batch entries may differ, and
        `[1, num_heads, q_len, num_keys]` of one entry. A key before 0 or past the end of the whole is not allowed.

    Raises:
        SpattnError: A tensor is missing or does not fit; E094, there are more than MAX_PAIRS pairs.
    """
    condition = meaning(node)
    given = Tensors(tensors, kv_len, batch_size, num_heads, q_len, longer=only is not None)
    given.require(free_names(node))
    first, count = kv_len - q_len if q_offset is None else q_offset, kv_len - k_offset if num_keys is None else num_keys
    shape: tuple[int, ...] = (q_len, max(count, 0))
    env: dict[str, Any] = {"kv_len": kv_len, "num_heads": num_heads, "batch_size": batch_size, "h": 0, "b": 0}
    spreads = only is not None or is_spread(condition, given)
    _check_size(shape[0] * shape[1] * (batch_size * num_heads if spreads else 1))
    keys = k_offset + np.arange(shape[-1])[None, :]
    env |= {"q_offset": first, "q": first + np.arange(q_len)[:, None], "k": keys}
    if spreads:
        entries = np.arange(batch_size) if only is None else np.array([only])
        env |= {"h": np.arange(num_heads)[:, None, None], "b": entries[:, None, None, None]}
        shape = (len(entries), num_heads, *shape)
    allowed = np.broadcast_to(evaluate(condition, env, given), shape)
    return allowed & (keys >= 0) & (keys < kv_len)


def request_masks(
    node: Node,
    q_len: int,
    num_keys: int,
    placed: Sequence[Mapping[str, Any]],
    *,
    num_heads: int = 1,
    tensors: Mapping[str, Any] = _NOTHING,
) -> BoolArray:
    """The allowed pairs of requests, each of its own lengths, in a padded batch.

    Args:
        node: The pattern.
        q_len: Rows of the padded batch.
        num_keys: Keys of the padded batch.
        placed: Of each request q_len, num_keys, kv_len, q_offset and k_offset.
        num_heads: Number of query heads.
        tensors: An array for each of the pattern's free names.

    Returns:
        `[requests, num_heads, q_len, num_keys]`; what is padding is not allowed.
    """
    found = np.zeros((len(placed), num_heads, q_len, num_keys), np.bool_)
    sizes: dict[str, Any] = {"num_heads": num_heads, "batch_size": len(placed), "tensors": tensors}
    for b, one in enumerate(placed):
        found[b : b + 1, :, : one["q_len"], : one["num_keys"]] = mask(node, **one, **sizes, only=b)
    return found


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
            case InTable(GivenTable(tensor) | ListedTable(tensor), _, _) if tensors.leading(tensor, 2):
                return True
            case InTable(BitTable(tensor), _, _) if tensors.leading(tensor, 1):
                return True
            case Read(tensor, index) if tensors.leading(tensor, len(index)):
                return True
            case Member(_, tokens, _) if any(tensors.leading(name, 1) for name in tokens.tensors):
                return True
            case SameSegment() | Relative() if tensors.documents_leading(part.documents):
                return True
    return False


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Any,
    scale: float | None = None,
    sinks: Tensor | None = None,
    *,
    score: Score | None = None,
    floats: Mapping[str, Tensor] = _NOTHING,
    q_offset: int | None = None,
    k_offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """Attention in float64 over the allowed pairs alone.

    Args:
        q: `[batch, num_q_heads, q_len, head_dim]`.
        k: `[batch, num_kv_heads, kv_len, head_dim]`.
        v: `[batch, num_kv_heads, kv_len, head_dim_v]`.
        mask: Allowed pairs, `[q_len, kv_len]` or with batch and heads before.
        scale: Factor of the scores; 1/sqrt(head_dim) where it is not given.
        sinks: `[num_q_heads]`, one more logit in each row of a head, without a value.
        score: What becomes of the scores before the mask.
        floats: The tensors that it reads.
        q_offset: Position of the first query; the last stands at the last key where it is not given.
        k_offset: Position of the first key.

    Returns:
        `out [batch, num_q_heads, q_len, head_dim_v]` and `lse [batch, num_q_heads, q_len]` (natural log), float64. A
        row without keys gives 0 and -inf, or its sink; values of keys that are not allowed never matter.
    """
    import torch

    batch, num_q_heads, q_len, head_dim = q.shape
    if num_q_heads % k.shape[1]:
        raise ArgumentError("E060", f"k has {k.shape[1]} heads, which does not divide q's {num_q_heads}")
    k, v = (x.double().repeat_interleave(num_q_heads // k.shape[1], 1) for x in (k, v))
    allowed = torch.as_tensor(mask, device=q.device).expand(batch, num_q_heads, q_len, k.shape[2])
    scores = q.double() @ k.transpose(-1, -2) * (1 / sqrt(head_dim) if scale is None else scale)
    if score is not None:
        first = k_offset + k.shape[2] - q_len if q_offset is None else q_offset
        scores = _scored(score, scores, floats, first, k_offset)
    scores = torch.where(allowed, scores, -torch.inf)
    logits = scores
    if sinks is not None:
        logits = torch.cat((scores, sinks.double()[:, None, None].expand(batch, -1, q_len, 1)), -1)
    lse = logits.logsumexp(-1)
    weights = torch.where(allowed, (scores - lse.unsqueeze(-1)).exp(), 0.0)
    return _combine(weights, allowed, v), lse


def _scored(score: Score, s: Tensor, floats: Mapping[str, Tensor], q_offset: int, k_offset: int) -> Tensor:
    """What a score makes of `[batch, num_q_heads, q_len, kv_len]`."""
    import torch

    from spattn.scores.evaluation import Values, evaluated
    from spattn.scores.words import steps

    firsts = {"b": (0, 0), "h": (0, 1), "q": (q_offset, 2), "k": (k_offset, 3)}
    places = {
        name: torch.arange(first, first + s.shape[dim], device=s.device).view([-1 if i == dim else 1 for i in range(4)])
        for name, (first, dim) in firsts.items()
    }
    tensors = {name: one.double() for name, one in floats.items()}
    for step in steps(score):
        s = evaluated(step, Values({**places, "s": s}, tensors)).expand_as(s)
    return s


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
