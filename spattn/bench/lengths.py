"""Lengths as people write them: 4096, 4k, 1M, 4k,16k, 4k..256k. A range goes up by factors of four."""

from __future__ import annotations

import re

from spattn.errors import ArgumentError

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20}
STEP = 4


def lengths(text: str) -> tuple[int, ...]:
    """The lengths that a text names, ascending.

    Raises:
        ArgumentError: E060, it names none.

    >>> lengths("4k..256k")
    (4096, 16384, 65536, 262144)
    """
    return tuple(sorted({n for part in text.split(",") for n in _range(part.strip())}))


def short(length: int) -> str:
    """A length as it is written in names.

    >>> short(65536), short(1 << 24), short(1000)
    ('64k', '16M', '1000')
    """
    for unit, name in ((1 << 20, "M"), (1 << 10, "k")):
        if length >= unit and length % unit == 0:
            return f"{length // unit}{name}"
    return str(length)


def _range(text: str) -> list[int]:
    first, dots, last = text.partition("..")
    begin, end = _length(first), _length(last if dots else first)
    found = []
    while begin < end:
        found.append(begin)
        begin *= STEP
    return [*found, end]


def _length(text: str) -> int:
    match = re.fullmatch(r"(\d{1,9})([km]?)", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise ArgumentError("E060", f"{text!r} is no length", hint="write 4096, 4k, 1M or 4k..256k")
    return int(match[1]) * UNITS[match[2]]
