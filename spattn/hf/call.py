"""The attention function that models call: a pattern and a mask's positions in, an exact call out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from spattn.attend import Attention, compile
from spattn.config import AttentionConfig
from spattn.errors import UnsupportedError
from spattn.hf.mask import Mask
from spattn.serving.hf import refuse_arguments, score_of, sinks_of
from spattn.serving.settings import attention_of, cache_window, check_window, config_of

CURE = "generate(.., past_key_values=DynamicCache()), or a config without sliding_window"
DROPOUT = "attention_dropout", "attn_pdrop", "attention_probs_dropout_prob", "dropout"
"""Names that configs give the dropout of weights."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Mask | Tensor | None,
    scaling: float | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """Attention of a layer.

    Args:
        module: The layer.
        query: `[batch, num_q_heads, q_len, head_dim]`.
        key: `[batch, num_kv_heads, kv_len, head_dim]`.
        value: The same of values.
        attention_mask: Of `spattn.hf.mask`; or a user's, `[batch, 1 or num_q_heads, q_len, kv_len]`, True for pairs
            that are allowed, or 0 for these and the least number of its dtype for others.
        scaling: Factor of the scores.
        given: What else the model gives.

    Returns:
        `[batch, q_len, num_q_heads, head_dim]`, and no weights.

    Raises:
        PatternError: The text of a pattern is none.
        UnsupportedError: E061, the layer asks for what is not served; the message names it.
        NotDecodableError: E062, a causal model has a pattern that decode steps cannot compute.
    """
    _refuse(module, given)
    mask = mask_of(module, query, key, attention_mask, given)
    attention = layer_attention(module, query, key, mask, given)
    options: dict[str, Any] = {"scale": scaling, "sinks": sinks_of(module, given)}
    if isinstance(mask, Tensor):
        allowed = mask.expand(query.shape[0], -1, -1, -1)
        out = attention(query, key, value, q_offset=0, kv_len=key.shape[2], allowed=allowed, **options)
    elif mask.documents is None:
        out = attention(query, key, value, **_near(mask.positions, query.device), **options)
    else:
        return _packed(attention, (query, key, value), mask, options), None
    return out.transpose(1, 2).contiguous(), None


def mask_of(
    module: Any, query: Tensor, key: Tensor, given_mask: Mask | Tensor | None, given: Mapping[str, Any]
) -> Mask | Tensor:
    """The mask of a call: that of `spattn.hf.mask`, truth values of a user's, or that of an encoder without padding.

    Raises:
        UnsupportedError: E061, there is none and the layer is causal, or it does not fit, or it is no mask.
    """
    rows, keys = query.shape[2], key.shape[2]
    if given_mask is None:
        causal = given.get("is_causal")
        if getattr(module, "is_causal", True) if causal is None else causal:
            raise UnsupportedError("E061", "a causal layer was given no mask", hint="call the model, not its layers")
        return Mask("full", rows, keys, positions={"q_offset": 0})
    if isinstance(given_mask, Mask):
        if (given_mask.q_len, given_mask.num_keys) != (rows, keys):
            made = f"{given_mask.q_len} rows and {given_mask.num_keys} keys"
            raise UnsupportedError("E061", f"the mask was made for {made}, and the layer has {rows} and {keys}")
        return given_mask
    if given_mask.ndim != 4 or tuple(given_mask.shape[2:]) != (rows, keys):
        shape = list(given_mask.shape)
        raise UnsupportedError("E061", f"a mask of shape {shape} is given for {rows} rows and {keys} keys")
    return given_mask if given_mask.dtype == torch.bool else _truth(given_mask)


def layer_attention(
    module: Any, query: Tensor, key: Tensor, mask: Mask | Tensor, given: Mapping[str, Any]
) -> Attention:
    """What a layer computes: its pattern in `config.spattn`, or the model's own mask.

    Raises:
        UnsupportedError: E061, the pattern does not go with the layer.
        NotDecodableError: E062, a causal model has a pattern that decode steps cannot compute.
    """
    config: Any = getattr(module, "config", None)
    score = score_of(given)
    own = config_of(config)
    if isinstance(mask, Tensor):
        if own is not None:
            raise UnsupportedError("E061", "a mask of four dimensions and a pattern are given; one says which pairs")
        return _of_pairs("h" if mask.shape[1] > 1 else "0", score)
    if own is None:
        return AttentionConfig(mask.pattern).attention(score=score)
    layer = getattr(module, "layer_idx", None)
    if layer is None:
        raise UnsupportedError("E061", f"{type(module).__name__} has no number of its layer, which a pattern needs")
    if config.is_encoder_decoder or getattr(config, "add_cross_attention", False):
        raise UnsupportedError("E061", "a pattern is served in models without cross attention")
    attention = attention_of(own, layer, config.num_hidden_layers, score)
    if mask.documents is not None and attention.reads_batch:
        raise UnsupportedError("E061", f"{attention.pattern} speaks of the batch, and packed documents are no batch")
    if mask.is_causal:
        _check(str(attention.pattern), mask.window, query.shape[1], key.shape[1])
    return attention


def needed_window(attention: Attention, num_heads: int, num_kv_heads: int) -> int | None:
    """The sliding window that a cache must have for a pattern; None where it may drop no key."""
    return cache_window(attention.pattern, num_heads=num_heads, num_kv_heads=num_kv_heads)


@lru_cache(maxsize=1024)
def _check(pattern: str, window: int | None, num_heads: int, num_kv_heads: int) -> None:
    check_window(pattern, window, cure=CURE, num_heads=num_heads, num_kv_heads=num_kv_heads)


@lru_cache(maxsize=64)
def _of_pairs(head: str, score: str | None) -> Attention:
    return compile(f"where(allowed[b, {head}, q, k])", score=score)


def _packed(attention: Attention, tensors: tuple[Tensor, ...], mask: Mask, options: dict[str, Any]) -> Tensor:
    """Attention inside each document: `[batch, q_len, num_q_heads, head_dim]`."""
    ends = _near({"cu_seqlens_q": mask.documents, "cu_seqlens_k": mask.documents}, tensors[0].device)
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in tensors)
    out: Tensor = attention(q, k, v, **ends, max_seqlen_q=mask.longest, max_seqlen_k=mask.longest, **options)
    return out.reshape(tensors[0].shape[0], -1, *out.shape[1:]).contiguous()


def _near(positions: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The same on the layer's device: layers of one model may stand on several."""
    return {name: x.to(device) if isinstance(x, Tensor) else x for name, x in positions.items()}


def _truth(mask: Tensor) -> Tensor:
    """Which pairs a mask of numbers allows.

    Raises:
        UnsupportedError: E061, it adds other numbers to scores.
    """
    allowed = mask == 0
    if not mask.is_floating_point() or bool((~allowed & (mask > torch.finfo(mask.dtype).min / 2)).any()):
        raise UnsupportedError(
            "E061",
            "a mask of numbers other than 0 and the least of its dtype is a bias, which is not served",
            hint="give a mask of truth values",
        )
    return allowed


def _refuse(module: Any, given: Mapping[str, Any]) -> None:
    refuse_arguments(given)
    if given.get("dropout"):
        config = getattr(module, "config", None)
        names = [name for name in DROPOUT if getattr(config, name, 0.0)]
        hint = f"config.{names[0]} = 0.0 before the model is made, or model.eval()" if names else "model.eval()"
        raise UnsupportedError("E061", f"dropout of {given['dropout']} is not served", hint=hint)
