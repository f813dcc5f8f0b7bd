"""How long the lists of tokens are that passes walk or tile, without making them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spattn.expressions.nodes import Tokens
from spattn.layout.ir import Layout, Listed


def token_counts(layout: Layout, sizes: Mapping[str, Sequence[int]], kv_len: int) -> tuple[tuple[Tokens, int], ...]:
    """The length of each list, as far as the shapes of its tensors are known.

    Args:
        layout: The passes.
        sizes: Shapes of the pattern's tensors.
        kv_len: Keys, in tokens.
    """
    maps = (index_map for one in layout.passes for index_map in (one.rows, *(walk.keys for walk in one.walks)))
    lists = dict.fromkeys(found.tokens for found in maps if isinstance(found, Listed))
    return tuple((one, _count(one, sizes, kv_len)) for one in lists if all(name in sizes for name in one.tensors))


def _count(tokens: Tokens, sizes: Mapping[str, Sequence[int]], kv_len: int) -> int:
    """Constants count once, and one stands for none; what a tensor names counts as often as it does."""
    if tokens.tensors:
        return len(tokens.values) + sum((tuple(sizes[name]) or (1,))[-1] for name in tokens.tensors)
    inside = {v if v >= 0 else v + kv_len for v in tokens.values}
    return max(sum(0 <= v < kv_len for v in inside), 1)
