"""The patterns of decode workloads: in the language, and as a function of positions of a query and of a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Mask = Callable[[Any, Any], Any]
"""(q, k) -> is the pair allowed? Positions in the request, numbers or tensors."""


@dataclass(frozen=True)
class DecodePattern:
    """A pattern said twice.

    Attributes:
        name: In names of workloads.
        text: In the language.
        mask: The same as a function.
        dense: Is every key needed?
        window: How many of the last keys are needed, where it is these and sinks alone.
        sinks: How many of the first are needed beside them.
        ring: Does a ring hold fewer slots than tokens?
    """

    name: str
    text: str
    mask: Mask
    dense: bool = False
    window: int | None = None
    sinks: int = 0
    ring: bool = False


PATTERNS = {
    one.name: one
    for one in (
        DecodePattern("dense", "causal", lambda q, k: q >= k, dense=True),
        DecodePattern(
            "window",
            "causal & (last(4096) | sink(64))",
            lambda q, k: (q >= k) & ((q - k < 4096) | (k < 64)),
            window=4096,
            sinks=64,
            ring=True,
        ),
        DecodePattern(
            "headers",
            "(last(256) | columns([::512])) & causal",
            lambda q, k: (q >= k) & ((q - k < 256) | (k % 512 == 0)),
            ring=True,
        ),
        DecodePattern(
            "strided",
            "(last(128) | strided(128)) & causal",
            lambda q, k: (q >= k) & ((q - k < 128) | ((q - k) % 128 == 0)),
        ),
        DecodePattern(
            "vertical",
            "(last(1024) | columns([0:64, ::1024])) & causal",
            lambda q, k: (q >= k) & ((q - k < 1024) | (k < 64) | (k % 1024 == 0)),
            ring=True,
        ),
    )
}
