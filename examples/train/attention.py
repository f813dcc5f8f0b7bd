"""What is compared: dense causal attention, the pattern by spattn, the same pattern by FlexAttention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from config import Config
from model import Attend
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import spattn
from spattn.nn import SparseAttention


def attends(name: str, config: Config) -> Sequence[Attend]:
    """The attention of this name, one for each block."""
    match name:
        case "dense":
            return [dense] * config.depth
        case "spattn":
            return [SparseAttention(config.pattern, layer=layer) for layer in range(config.depth)]
        case "flex":
            return [flex(config)] * config.depth
    raise ValueError(f"there is no attention {name!r}: dense, spattn, flex")


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All keys up to the query's own."""
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def flex(config: Config) -> Attend:
    """FlexAttention with a mask function, which is first held against the pattern."""
    window, stride, length = config.flex["window"], config.flex["stride"], config.length

    def allowed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & ((q - k < window) | (k % stride == 0))

    places = torch.arange(2 * max(window, stride))
    pairs = allowed(places, places, places[:, None], places)
    for layer in range(config.depth):
        if not torch.equal(pairs, spattn.parse(config.pattern, layer=layer).mask(*pairs.shape)):
            raise ValueError(f"the mask function of `flex` is not the pattern of block {layer}")
    # not compiled: that takes minutes, and this some gigabytes
    block_mask = create_block_mask(allowed, None, None, length, length, device=config.device)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=block_mask)
