"""What a model's layers are told of a mask: a pattern, and where rows and keys stand; no square of tokens.

transformers asks for a mask once for each kind of layer, before any layer runs. Padding becomes positions: each row
of a batch counts from its first token, what is left of it stands before 0, and the whole ends with its last token.
Packed documents become their ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from spattn.errors import UnsupportedError
from spattn.hf.own import OwnMask, read


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask of one kind of layer; models hand it on as they would a tensor.

    Attributes:
        pattern: The model's own.
        q_len: Rows of a call.
        num_keys: Keys of a call.
        k_offset: How many older keys the cache has dropped.
        positions: `q_offset`, `k_offset` and `kv_len`, as `spattn.Attention` takes them.
        documents: Of packed rows, `[documents + 1]`: where each ends in all rows of the batch, one behind another.
        longest: Tokens of the longest document.
        ndim: Of the tensor that it stands for, which transformers asks.
    """

    pattern: str
    q_len: int
    num_keys: int
    k_offset: int = 0
    positions: dict[str, Any] = field(default_factory=dict)
    documents: Tensor | None = None
    longest: int = 0
    ndim: int = 4

    @property
    def is_causal(self) -> bool:
        """Does no row attend a key behind its own position?"""
        return "causal" in self.pattern

    @property
    def window(self) -> int | None:
        """The last keys that a query is given, its own among them; None where the cache has dropped none."""
        return self.num_keys - self.q_len + 1 if self.k_offset else None

    def _refuse(self, *_: Any) -> NoReturn:
        raise UnsupportedError(
            "E061",
            "the model computes with the mask itself, so that it does not leave attention to spattn",
            hint='attn_implementation="eager"',
        )

    __getitem__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __invert__ = _refuse


def make(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: Tensor | Mask | None = None,
    **given: Any,
) -> Mask:
    """The mask function that is registered.

    Args:
        batch_size: Rows of the batch.
        q_length: New tokens.
        kv_length: Keys that layers will be given.
        q_offset: Position of the first new token; a tensor is advanced by the cache later on, and read now.
        kv_offset: Position of the first key.
        mask_function: The model's own mask.
        attention_mask: `[batch, tokens]`, which tokens are no padding; or a mask made before, which is answered.
        given: What else transformers says.

    Raises:
        UnsupportedError: E061, the mask is not known, or padding lies between tokens of a row.
    """
    if isinstance(attention_mask, Mask):
        return attention_mask
    if mask_function is None:
        raise UnsupportedError("E061", "transformers names no mask function", hint="pip install 'transformers>=5.24'")
    own = read(mask_function)
    if own.documents is not None:
        return _packed(own, q_length, kv_length)
    at = _positions(kv_length, q_offset, kv_offset, attention_mask)
    return Mask(own.pattern, q_length, kv_length, kv_offset, at)


def _positions(kv_length: int, q_offset: int | Tensor, kv_offset: int, keep: Tensor | None) -> dict[str, Any]:
    """Where rows and keys stand; numbers where all rows of the batch agree and the cache has numbers."""
    begin = q_offset.clone().reshape(1) if isinstance(q_offset, Tensor) else q_offset
    end = kv_offset + kv_length  # of a static cache more than there are yet: no row of a causal mask asks for them
    if keep is None:
        return {"q_offset": begin, "k_offset": kv_offset, "kv_len": end}
    if bool(keep.all()):
        return {"q_offset": begin, "k_offset": kv_offset, "kv_len": min(keep.shape[1], end)}
    starts, stops = _ends(keep)
    kv_lens = (stops.clamp(max=end) - starts).clamp(min=0)
    return {"q_offset": begin - starts, "k_offset": kv_offset - starts, "kv_len": kv_lens}


def _ends(keep: Tensor) -> tuple[Tensor, Tensor]:
    """The first token of each row of a batch, and the first behind its tokens; both `[batch]`.

    Raises:
        UnsupportedError: E061, padding lies between tokens.
    """
    count = keep.sum(1)
    starts = keep.int().argmax(1)
    within = torch.arange(keep.shape[1], device=keep.device)
    run = (within >= starts[:, None]) & (within < (starts + count)[:, None])
    if not bool((run == keep).all()):
        raise UnsupportedError(
            "E061",
            "attention_mask leaves out tokens between others of a row; padding lies to the left or to the right",
            hint='a mask of four dimensions says which pairs are allowed, or attn_implementation="eager"',
        )
    return starts, starts + count


def _packed(own: OwnMask, q_length: int, kv_length: int) -> Mask:
    """The mask of documents that lie one behind another; each counts from its own first token."""
    documents, positions = own.documents, own.positions
    assert documents is not None
    assert positions is not None  # neither, or both
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    begins = first.flatten().nonzero().flatten()
    if "chunk" in own.pattern and bool(positions.flatten()[begins].any()):
        raise UnsupportedError("E061", "chunks of a packed document count from its start, and position_ids do not")
    ends = torch.cat([begins, begins.new_tensor([documents.numel()])])
    return Mask(
        own.pattern, q_length, kv_length, documents=ends.to(torch.int32), longest=int((ends[1:] - ends[:-1]).max())
    )
