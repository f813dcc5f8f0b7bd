"""`DecodeWorkload`: a pattern, requests of some lengths, and how their keys and values are stored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from random import Random

from spattn.bench.decode.patterns import DecodePattern
from spattn.bench.lengths import short
from spattn.pattern import Pattern

SHORTEST = 8
"""Ragged lengths are drawn from an eighth of the greatest on."""


class Stored(StrEnum):
    """Where keys and values lie."""

    DENSE = "dense"
    PAGE16 = "page16"
    PAGE64 = "page64"
    RING = "ring"

    @property
    def page_size(self) -> int:
        """Slots of a page; 0 without pages."""
        return int(self.value.removeprefix("page")) if self.value.startswith("page") else 0


class Numbers(StrEnum):
    """What is stored: numbers of the dtype of q, or float8 with scales."""

    PLAIN = "plain"
    FP8 = "fp8"


@dataclass(frozen=True)
class DecodeWorkload:
    """A step of `batch` requests.

    Attributes:
        pattern: Which keys rows need.
        batch: Requests.
        length: Tokens of a request with its new ones; the most of any, where they are ragged.
        stored: How its keys and values lie.
        numbers: What they are.
        ragged: Are lengths drawn, uniformly from `length` / 8 on?
        new: Rows of a request: 1, or those of a draft that is verified.
        q_heads: Query heads.
        kv_heads: Key heads.
        head_dim: Of all.
    """

    pattern: DecodePattern
    batch: int
    length: int
    stored: Stored = Stored.DENSE
    numbers: Numbers = Numbers.PLAIN
    ragged: bool = False
    new: int = 1
    q_heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128

    @property
    def name(self) -> str:
        """As tables show it: what is usual is left out."""
        parts = [f"decode_{self.pattern.name}_b{self.batch}_{short(self.length)}"]
        parts += [self.stored] if self.stored is not Stored.DENSE else []
        parts += [self.numbers] if self.numbers is not Numbers.PLAIN else []
        parts += ["ragged"] if self.ragged else []
        parts += [f"new{self.new}"] if self.new > 1 else []
        return "_".join(parts)

    @cached_property
    def compiled(self) -> Pattern:
        """The pattern."""
        return Pattern.of(self.pattern.text)

    @property
    def lengths(self) -> list[int]:
        """Of each request, the same each time; the first is the longest."""
        if not self.ragged:
            return [self.length] * self.batch
        random, least = Random(0), max(self.length // SHORTEST, self.new + 1, 1)
        return [self.length, *(random.randint(least, self.length) for _ in range(self.batch - 1))]

    @property
    def uniform(self) -> bool:
        """One row a request, and as many keys in each?"""
        return self.new == 1 and not self.ragged
