"""A decode step as what computes it is given it: checked, with tensors to write to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from spattn.serving.storage import Storage


@dataclass(frozen=True)
class Step:
    """New rows of some requests, and the keys that these hold.

    Request b is the call of keys 0 .. kv_lens[b]-1 whose last rows are its own. One without keys or rows is left out.

    Attributes:
        q: `[tokens, num_q_heads, head_dim]` with `cu_seqlens_q`, else `[batch, num_q_heads, q_len, head_dim]`.
        cache: Keys and values, those of the new rows among them.
        cu_seqlens_q: int32 `[batch + 1]`, rows of request b are cu[b] .. cu[b+1]-1; None where all have q_len.
        out: q's shape, of width v_head_dim; rows of no request stay as they are.
        lse: float32, `[num_q_heads, tokens]` or `[batch, num_q_heads, q_len]`, natural logarithm; None if not wanted.
        sinks: `[num_q_heads]`, a logit without a value.
        scale: Factor of the scores; 1/sqrt(head_dim) if None.
        shared_keys: So many first keys are the same tensors' for all requests.
        tensors: Those of the pattern and its score, by name.
    """

    q: Tensor
    cache: Storage
    cu_seqlens_q: Tensor | None
    out: Tensor
    lse: Tensor | None
    sinks: Tensor | None
    scale: float | None
    shared_keys: int
    tensors: Mapping[str, Any]


class Steps(Protocol):
    """What computes decode steps of one decoder."""

    def __call__(self, step: Step) -> None:
        """Writes out, and lse where it is wanted."""
        ...
