"""The decode workloads that a run is asked for: a few by default, products of what options name otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from itertools import product
from typing import TypeVar

import torch

from spattn.bench.decode.patterns import PATTERNS
from spattn.bench.decode.workload import DecodeWorkload, Numbers, Stored
from spattn.bench.lengths import lengths
from spattn.bench.options import Options
from spattn.bench.workloads.selection import known
from spattn.errors import ArgumentError

GROUP = "decode"
LONG = 131072
CPU_LENGTH, CPU_BATCH = 2048, 2
"""What a CPU does in seconds."""


def _few() -> tuple[DecodeWorkload, ...]:
    dense, window = PATTERNS["dense"], PATTERNS["window"]
    sparse = (DecodeWorkload(one, 8, LONG) for one in PATTERNS.values() if not one.dense)
    return (
        DecodeWorkload(dense, 1, LONG),
        DecodeWorkload(dense, 8, 32768, Stored.PAGE16),
        DecodeWorkload(dense, 64, 8192, Stored.PAGE64, ragged=True),
        DecodeWorkload(window, 1, LONG),
        *sparse,
        DecodeWorkload(window, 8, LONG, Stored.PAGE64),
        DecodeWorkload(window, 8, LONG, Stored.RING),
        DecodeWorkload(window, 8, LONG, Stored.PAGE64, Numbers.FP8),
        DecodeWorkload(window, 8, 32768, Stored.PAGE64, new=4),
    )


FEW = _few()
"""A mixture that an H100 is through with in two minutes."""
NAMES = (GROUP, *(f"{GROUP}_{name}" for name in PATTERNS))

Choice = TypeVar("Choice", bound=StrEnum)


def is_decode(name: str) -> bool:
    """Does a name on the command line mean this group?"""
    return name.partition("_")[0] == GROUP


def decode_workloads(names: Iterable[str], options: Options, device: torch.device) -> list[DecodeWorkload]:
    """The workloads of `decode`, which is all patterns, or of `decode_PATTERN`.

    Where no option says more, `decode` is a mixture of a few. A CPU has short requests unless lengths are given.

    Raises:
        UnsupportedError: E041, there is no such pattern, or choice of an option.
        ArgumentError: E060, a length is none, or nothing is left.
    """
    wanted = [known(name, NAMES, "workload").removeprefix(GROUP).removeprefix("_") for name in names]
    if not wanted:
        return []
    given = any((options.length, options.batch, options.stored, options.numbers, options.new, options.ragged))
    found = [] if given else [one for one in FEW if "" in wanted or one.pattern.name in wanted]
    if device.type == "cpu":
        found = [replace(one, length=CPU_LENGTH, batch=min(one.batch, CPU_BATCH)) for one in found]
    if given:
        found = [one for name in wanted for one in _products(name, options, device)]
    if not found:
        raise ArgumentError("E060", "no decode workload is like this", hint="a ring holds windows, not all keys")
    return list({one.name: one for one in found}.values())


def _products(name: str, options: Options, device: torch.device) -> list[DecodeWorkload]:
    gpu = device.type == "cuda"
    at = lengths(options.length) if options.length else (LONG if gpu else CPU_LENGTH,)
    batches = lengths(options.batch) if options.batch else ((1, 8) if gpu else (CPU_BATCH,))
    stored = _choices(options.stored, Stored, "storage") or [Stored.DENSE]
    numbers = _choices(options.numbers, Numbers, "kind of numbers") or [Numbers.PLAIN]
    new = lengths(options.new) if options.new else (1,)
    patterns = [PATTERNS[name]] if name else list(PATTERNS.values())
    all_of_them = product(patterns, at, batches, stored, numbers, new)
    return [
        DecodeWorkload(pattern, batch, length, place, kind, options.ragged, rows)
        for pattern, length, batch, place, kind, rows in all_of_them
        if (pattern.ring or place is not Stored.RING) and length > rows
    ]


def _choices(text: str, kind: type[Choice], what: str) -> list[Choice]:
    names = tuple(one.strip() for one in text.split(",") if one.strip())
    return list(kind) if names == ("all",) else [kind(known(one, [str(each) for each in kind], what)) for one in names]
