"""Where the rows and the given keys of a call stand, in words."""

from __future__ import annotations

from collections.abc import Iterator


def unusual(q_len: int, q_offset: int, k_offset: int, num_keys: int, kv_len: int) -> Iterator[str]:
    """What is not as in a call that says nothing: all keys are given, and the last query stands at the last."""
    if num_keys < kv_len:
        given = f"{k_offset} .. {k_offset + num_keys - 1}" if num_keys else "none"
        yield f"keys {given} of {kv_len}"
    if q_offset != kv_len - q_len:
        yield f"the first query at {q_offset}"
