"""How long the lists of tokens are that kernels read, without making them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from spattn.codegen.parameters import Role, TokenList
from spattn.expressions.nodes import Tokens


def token_counts(roles: Iterable[Role], tensors: Mapping[str, Any], kv_len: int) -> tuple[tuple[Tokens, int], ...]:
    """The length of each list whose tensors are given: those that `inputs.Inputs` has."""
    lists = dict.fromkeys(role.tokens for role in roles if isinstance(role, TokenList))
    return tuple((one, _count(one, tensors, kv_len)) for one in lists if all(name in tensors for name in one.tensors))


def _count(tokens: Tokens, tensors: Mapping[str, Any], kv_len: int) -> int:
    """Constants count once, and one stands for none; what a tensor names counts as often as it does."""
    if tokens.tensors:
        return len(tokens.values) + sum((np.shape(tensors[name]) or (1,))[-1] for name in tokens.tensors)
    inside = {v if v >= 0 else v + kv_len for v in tokens.values}
    return max(sum(0 <= v < kv_len for v in inside), 1)
