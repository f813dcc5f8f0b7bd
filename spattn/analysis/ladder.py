"""The ladder: a pattern's layout and its kernels beside the oracle; the first rung that differs is the guilty stage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from spattn import oracle
from spattn.analysis.samples import sample_tensors
from spattn.attend import Attention
from spattn.call.positions import Positions
from spattn.layout.rebuild import layout_mask

MAX_PAIRS = 1 << 24


@dataclass(frozen=True)
class Rung:
    """One comparison.

    Attributes:
        name: What is compared with the oracle.
        passed: None where it could not run here.
        detail: The difference, or why it could not run.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Sizes:
    """Of the call that is tried.

    Attributes:
        positions: Where its rows and keys stand.
    """

    positions: Positions
    num_heads: int = 2
    batch_size: int = 1
    head_dim: int = 64


def climb(attn: Attention, sizes: Sizes, backends: tuple[str, ...], seed: int = 0) -> Iterator[Rung]:
    """The layout's mask, then each backend on random tensors, each against the oracle."""
    pattern = attn.pattern
    names = pattern.free_names
    at = sizes.positions
    tensors = sample_tensors(pattern.condition, names, at.kv_len, seed, at.q_len)
    entries = {"num_heads": sizes.num_heads, "batch_size": sizes.batch_size}
    placed = {"q_offset": at.q_offset, "k_offset": at.k_offset, "num_keys": at.num_keys}
    mask = oracle.mask(pattern.syntax, at.q_len, at.kv_len, tensors=tensors, **placed, **entries)
    yield from _layout_rungs(attn, sizes, mask, tensors)
    for backend in backends:
        yield _backend_rung(attn, sizes, mask, tensors, backend, seed)


def _layout_rungs(attn: Attention, sizes: Sizes, mask: Any, tensors: dict[str, Any]) -> Iterator[Rung]:
    at = sizes.positions
    pairs_of = (at.q_len, at.num_keys)
    whole = (sizes.batch_size, sizes.num_heads, *pairs_of)
    wanted = np.broadcast_to(mask, whole).reshape(math.prod(whole[:2]), *pairs_of)
    for i, (values, pairs) in enumerate(attn.groups(sizes.batch_size, sizes.num_heads).items()):
        name = "layout" if i == 0 else f"layout of group {i}"
        try:
            found = layout_mask(
                attn.layout_of(values),
                at.q_len,
                at.kv_len,
                q_offset=at.q_offset,
                given=at.given,
                num_heads=sizes.num_heads,
                batch_size=sizes.batch_size,
                tensors=tensors,
            )
        except AssertionError as error:
            yield Rung(name, False, str(error))
            continue
        rebuilt = np.broadcast_to(found, whole).reshape(wanted.shape)[pairs]
        yield Rung(name, *_compared(rebuilt, wanted[pairs]))


def _compared(found: Any, wanted: Any) -> tuple[bool, str]:
    differing = np.argwhere(found != wanted)
    if not len(differing):
        return True, f"the same {int(wanted.sum())} pairs"
    _, row, key = differing[0]
    return False, f"{len(differing)} pairs differ, the first at row {row}, key {key}"


def _backend_rung(attn: Attention, sizes: Sizes, mask: Any, tensors: dict[str, Any], backend: str, seed: int) -> Rung:
    from spattn.runtime.trial import trial

    shape = (sizes.batch_size, sizes.num_heads)
    roles = attn.pattern.free_names
    at, head_dim = sizes.positions, sizes.head_dim
    found = trial(attn, roles, mask, tensors, backend, shape=shape, at=at, head_dim=head_dim, seed=seed)
    if found.refusal is not None:
        return Rung(backend, None, found.refusal)
    errors = f"out within {found.error:.2e} (allowed {found.allowed_error:.0e}), lse within {found.lse_error:.2e}"
    return Rung(backend, found.passed, f"{errors}, {found.dtype} on {found.device}")
