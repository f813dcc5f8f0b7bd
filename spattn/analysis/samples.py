"""Example tensors for a pattern's free names, where somebody asks about it without a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spattn.errors import UnsupportedError
from spattn.expressions.algebra import subexpressions
from spattn.expressions.nodes import Bool, FloorDiv, GivenTable, Int, InTable, ListedTable, Read

Array = NDArray[Any]
MAX_LENGTH = 1 << 24
DOCUMENTS = 8
TOKENS = 4
MARKED = 0.25
DRAFTED = 4


def sample_tensors(
    condition: Bool, roles: Mapping[str, str], kv_len: int, seed: int = 0, q_len: int | None = None
) -> dict[str, Array]:
    """A tensor for each free name, the same for the same seed.

    Documents are eight runs of random lengths on each side, tokens four positions, lengths one number between half and
    all of kv_len, a quarter of the blocks is marked or listed, four drafted tokens are a chain; other tensors hold 0,
    1, 2, 3.

    Raises:
        UnsupportedError: E094, they would be too long.
    """
    if roles and kv_len > MAX_LENGTH:
        names = ", ".join(roles)
        raise UnsupportedError(
            "E094", f"{names}: no example tensor is made for {kv_len} keys", hint=f"try {MAX_LENGTH}"
        )
    random = np.random.default_rng(seed)
    lengths = {"query documents": kv_len if q_len is None else q_len}
    return {name: _sample(name, role, condition, lengths.get(role, kv_len), random) for name, role in roles.items()}


def _sample(name: str, role: str, condition: Bool, kv_len: int, random: np.random.Generator) -> Array:
    match role:
        case "documents" | "query documents":
            return np.cumsum(np.isin(np.arange(kv_len), _cuts(kv_len, random)))
        case "segments":
            return np.concatenate([[0], np.sort(_cuts(kv_len, random)), [kv_len]])
        case "tokens":
            return np.sort(random.choice(max(kv_len, 1), min(TOKENS, kv_len), replace=False))
        case "lengths":
            return np.asarray(random.integers(kv_len // 2, kv_len + 1))
        case "blocks":
            blocks = -(-kv_len // _block_size(name, condition))
            return np.asarray(random.random((blocks, blocks)) < MARKED)
        case "draft ancestors":  # a chain, as plain decoding has it
            return np.asarray([2 ** (i + 1) - 1 for i in range(DRAFTED)])
        case "draft depths":
            return np.arange(DRAFTED)
        case "block lists":
            blocks = -(-kv_len // _block_size(name, condition))
            return _listed(random.random((blocks, blocks)) < MARKED)
    rank = _rank(name, condition)
    return random.integers(0, 4, (kv_len,) * rank) if rank else np.asarray(kv_len // 2)


def _listed(marked: Array) -> Array:
    """A table as lists: how many blocks are marked in a row, these ascending, then -1."""
    count = marked.sum(-1, keepdims=True)
    order = np.argsort(~marked, axis=-1, kind="stable")
    return np.concatenate([count, np.where(np.arange(marked.shape[-1]) < count, order, -1)], -1).astype(np.int32)


def _cuts(length: int, random: np.random.Generator) -> Array:
    """Where documents begin, besides the first."""
    cuts = random.choice(max(length, 1), min(DOCUMENTS - 1, length), replace=False)
    return cuts[cuts > 0]


def _block_size(name: str, condition: Bool) -> int:
    """The size of the blocks that a table or lists speak of."""
    for part in subexpressions(condition):
        match part:
            case InTable(GivenTable(tensor) | ListedTable(tensor), FloorDiv(_, Int(size)), _) if tensor == name:
                return size
    return 1


def _rank(name: str, condition: Bool) -> int:
    """By how many indices a tensor is read."""
    found = [len(p.index) for p in subexpressions(condition) if isinstance(p, Read) and p.tensor == name]
    return max(found, default=1)
