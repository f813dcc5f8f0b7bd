"""Lengths and positions rounded to powers of two: what is decided for a call holds for all that round alike."""

from __future__ import annotations

from typing import NamedTuple


class Rounded(NamedTuple):
    """Where the rows and the given keys of a call stand, about.

    Attributes:
        rows: Positions, half-open.
        keys: Positions of those that are given, half-open.
        kv_len: Keys of the whole.
    """

    rows: tuple[int, int]
    keys: tuple[int, int]
    kv_len: int


def power_of_two(n: int) -> int:
    """The least power of two that is at least n; 0 and 1 stay."""
    return n if n < 2 else 1 << (n - 1).bit_length()


def rounded(rows: tuple[int, int], keys: tuple[int, int], kv_len: int) -> Rounded:
    """A call's positions, lengths and ends rounded up.

    Where the first keys are given, rows end at a power of two as keys do. Else the end of the rows stands as far from
    the end of the given keys, in these keys' lengths, so that shards see what they see, and a window of the last keys
    ends with its row, however far both have come.

    Args:
        rows: Positions of the rows, half-open.
        keys: Positions of the keys that are given, half-open, all from 0 to before `kv_len`.
        kv_len: Keys of the whole.
    """
    count, q_len = keys[1] - keys[0], power_of_two(rows[1] - rows[0])
    num_keys, key_stop = power_of_two(count), power_of_two(keys[1])
    if keys[0] == 0 or count == 0:
        row_stop = power_of_two(max(rows[1], 0))
    else:
        row_stop = key_stop + _rounded_up((rows[1] - keys[1]) * num_keys // count)
    return Rounded((row_stop - q_len, row_stop), (key_stop - num_keys, key_stop), power_of_two(kv_len))


def _rounded_up(distance: int) -> int:
    """To a power of two in size, towards more; 0 stays."""
    return power_of_two(distance) if distance >= 0 else -(1 << (-distance).bit_length() - 1)
