"""Where the rows and the keys stand that a call gives: as numbers, or for each request in tensors on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from spattn.errors import ArgumentError

MissingKeys = Literal["refuse", "ignore"]
OFFSETS = ("q_offset", "k_offset", "kv_len")
"""A number, or a tensor of one or of one a request."""
LENGTHS = ("q_lens", "kv_lens", "cu_seqlens_q", "cu_seqlens_k")
"""Tensors of one number a request, or of the ends of all."""
BY_REQUEST = OFFSETS + LENGTHS
"""What a call's tensors may be called beside the names of its pattern, which are never these."""


class Placement(NamedTuple):
    """What a user says of positions, unchecked; arguments of `spattn.Attention`."""

    q_offset: Any
    k_offset: Any
    kv_len: Any
    q_lens: Any
    kv_lens: Any
    cu_seqlens_q: Any
    cu_seqlens_k: Any
    max_seqlen_q: Any
    max_seqlen_k: Any
    missing_keys: Any


class Numbers(NamedTuple):
    """What a call says in numbers; None where it says nothing, or says it in a tensor.

    Attributes:
        q_offset: Position of the first row.
        k_offset: Position of the first key.
        kv_len: Keys of the whole, given or not.
        max_seqlen_q, max_seqlen_k: No packed request has more rows, more keys.
        missing_keys: What becomes of a call whose pattern has keys that are not given.
    """

    q_offset: int | None = None
    k_offset: int | None = None
    kv_len: int | None = None
    max_seqlen_q: int | None = None
    max_seqlen_k: int | None = None
    missing_keys: MissingKeys = "refuse"


USUAL = Numbers()
"""The last row stands at the last key, and all keys are given."""


class Positions(NamedTuple):
    """Row i stands at q_offset + i and key j at k_offset + j, of kv_len keys; given are q_len rows and num_keys keys.

    Attributes:
        by_request: Those of `BY_REQUEST` that tensors of the call say for each request. Then the lengths here are the
            greatest that a request may have, and offsets that differ are 0.
        said: What the call says in numbers.
        lie_in: Rows of q's tensor, and keys of k's.
    """

    q_offset: int
    q_len: int
    k_offset: int
    num_keys: int
    kv_len: int
    by_request: tuple[str, ...] = ()
    said: Numbers = USUAL
    lie_in: tuple[int, int] = (0, 0)

    @staticmethod
    def usual(q_len: int, kv_len: int, q_offset: int | None = None) -> Positions:
        """All keys are given; the last row stands at the last key where no offset says otherwise."""
        return placed(Numbers(q_offset), (), q_len, kv_len)

    @property
    def is_packed(self) -> bool:
        """Do the requests lie one after another in one dimension of the tensors?"""
        return "cu_seqlens_q" in self.by_request

    @property
    def rows(self) -> tuple[int, int]:
        """Positions of the rows, half-open."""
        return self.q_offset, self.q_offset + self.q_len

    @property
    def given(self) -> tuple[int, int]:
        """Positions of the keys that are given, half-open."""
        return self.k_offset, self.k_offset + self.num_keys


def keys_inside(k_offset: int, num_keys: int, kv_len: int) -> tuple[int, int]:
    """Positions of the given keys that are of the whole, half-open."""
    first = min(max(k_offset, 0), kv_len)
    return first, min(max(k_offset + num_keys, first), kv_len)


def integer(name: str, value: Any) -> int:
    """A position or a length, NumPy's too.

    Raises:
        ArgumentError: E060, it is no integer.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    raise ArgumentError("E060", f"{name} is a {type(value).__name__}, not an integer", hint=f"{name}=int(..)")


def of_the_whole(said: Numbers, num_keys: int) -> tuple[Numbers, int, int]:
    """What a call says without the keys that stand before 0 or past the end of the whole, which no row attends.

    Args:
        said: What it says in numbers; where it says nothing of keys, all are given.
        num_keys: Keys of k's tensor.

    Returns:
        The same with `k_offset` and `kv_len`, and which keys of the tensor are left, half-open.

    Raises:
        ArgumentError: E060, the whole has less than no keys.
    """
    first = said.k_offset or 0
    kv_len = first + num_keys if said.kv_len is None else said.kv_len
    if kv_len < 0:
        raise ArgumentError("E060", f"kv_len is {kv_len}; a length is 0 or more")
    begin, end = max(-first, 0), min(kv_len - first, num_keys)
    return said._replace(k_offset=first + begin, kv_len=kv_len), begin, max(end, begin)


def check_missing_keys(value: Any) -> None:
    """Refuses what is no word for what becomes of missing keys.

    Raises:
        ArgumentError: E060.
    """
    if value not in ("refuse", "ignore"):
        raise ArgumentError("E060", f'missing_keys is "refuse" or "ignore", not {value!r}')


def standing(
    q_len: int,
    kv_len: int | None = None,
    *,
    q_offset: int | None = None,
    k_offset: int = 0,
    num_keys: int | None = None,
) -> Positions:
    """Where the rows and keys of a call stand, for those who ask about one without making it.

    Args:
        q_len: Number of queries.
        kv_len: Keys of the whole; where it is not given the whole ends with the keys that are, and has as many keys as
            there are queries where nobody says how many these are.
        q_offset: Position of the first query; the last query stands at the last key of the whole where it is not given.
        k_offset: Position of the first key that is given.
        num_keys: How many are given; all up to the last of the whole where it is not said.

    Returns:
        Positions, without keys before 0 or past the end of the whole.

    Raises:
        ArgumentError: E060, one is no integer, or a length is less than 0.
    """
    said = {"q_len": q_len, "kv_len": kv_len, "q_offset": q_offset, "k_offset": k_offset, "num_keys": num_keys}
    known = {name: integer(name, value) for name, value in said.items() if value is not None}
    for name in ("q_len", "num_keys"):
        if known.get(name, 0) < 0:
            raise ArgumentError("E060", f"{name} is {known[name]}; a length is 0 or more")
    q_len, k_offset = known["q_len"], known["k_offset"]
    whole = known.get("kv_len")
    if whole is None:
        whole = k_offset + known["num_keys"] if "num_keys" in known else q_len
    count = known.get("num_keys", max(whole - k_offset, 0))
    numbers, begin, end = of_the_whole(Numbers(known.get("q_offset"), k_offset, whole), count)
    return placed(numbers, (), q_len, end - begin)


def refused(at: Positions, missing: tuple[int, int]) -> ArgumentError:
    """The error of a call with a row that attends a key which is not given.

    Args:
        at: Where its rows and keys stand.
        missing: Positions of such a row and key.
    """
    row, key = missing
    first, stop = at.given
    given = f"keys {first} .. {stop - 1}" if stop > first else "none"
    message = f"row {row - at.q_offset}, at position {row}, attends key {key}, and {given} are given"
    return ArgumentError(
        "E060", message, hint='missing_keys="ignore" computes over those that are, to be merged by lse'
    )


def out_strides(shape: Sequence[int], *, packed: bool) -> tuple[int, ...]:
    """Of `[batch, heads, rows, width]`, dense: packed rows have their heads side by side."""
    _, heads, rows, width = (max(size, 1) for size in shape)
    inner = (width, heads * width) if packed else (rows * width, width)
    return (heads * rows * width, *inner, 1)


def placed(said: Numbers, by_request: tuple[str, ...], q_len: int, num_keys: int) -> Positions:
    """The positions of a call.

    Args:
        said: What it says in numbers.
        by_request: What it says in tensors.
        q_len: Rows of q's tensor.
        num_keys: Keys of k's tensor.
    """
    lie_in = q_len, num_keys
    if said.max_seqlen_q is not None:
        q_len = min(said.max_seqlen_q, q_len)
    if said.max_seqlen_k is not None:
        num_keys = min(said.max_seqlen_k, num_keys)
    k_offset = said.k_offset or 0
    kv_len = k_offset + num_keys if said.kv_len is None else said.kv_len
    q_offset = said.q_offset
    if q_offset is None:
        q_offset = 0 if by_request else kv_len - q_len
    return Positions(q_offset, q_len, k_offset, num_keys, kv_len, by_request, said, lie_in)
