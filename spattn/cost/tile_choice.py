"""The plan and the tiles that suit a device: of the forward those predicted to be quickest, of the backward the usual.

Launches ask, and explanations, which have no tensors: torch is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from spattn.call.shape import Shape
from spattn.codegen.kernel_specs import FORWARD, KernelSpec
from spattn.codegen.tile import Tile
from spattn.cost.backward_tiles import Extent, backward_candidates
from spattn.cost.choice import ranked
from spattn.cost.plans import prefers_classes
from spattn.cost.sizes import Sizes
from spattn.expressions.nodes import Tokens
from spattn.layout.ir import Layout
from spattn.machine.device import Device

if TYPE_CHECKING:
    from spattn.call.request import CompiledPattern

TokenCounts = Iterable[tuple[Tokens, int]]


class Question(Protocol):
    """Passes of one kind in a call: which tiles suit them?"""

    @property
    def kind(self) -> KernelSpec:
        """What they compute."""
        ...

    @property
    def layout(self) -> Layout:
        """The passes."""
        ...

    @property
    def shape(self) -> Shape:
        """The call's sizes."""
        ...

    @property
    def count(self) -> int:
        """(batch, head) pairs, of query heads or of key heads."""
        ...

    @property
    def tokens(self) -> TokenCounts:
        """How long each list of tokens is that they read."""
        ...

    @property
    def device(self) -> Device:
        """Where they run."""
        ...

    @property
    def languages(self) -> tuple[str, ...]:
        """Which may write their kernels."""
        ...


@dataclass(frozen=True)
class Asked:
    """A question without tensors; attributes are those of `Question`."""

    kind: KernelSpec
    layout: Layout
    shape: Shape
    count: int
    tokens: tuple[tuple[Tokens, int], ...]
    device: Device
    languages: tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """A tile of a pass; `predicted` are microseconds, None for gradients, of which none are predicted."""

    tile: Tile
    predicted: float | None


def suits_classes(
    plans: CompiledPattern,
    values: tuple[bool, ...],
    shape: Shape,
    count: int,
    device: Device,
    languages: tuple[str, ...],
) -> bool:
    """Are the rows of a group's `count` (batch, head) pairs tiled by residue by_residue, where its plan has them?"""
    layout = plans.layout_of(values)
    if not layout.in_classes or count == 0:
        return True
    return prefers_classes(
        layout, plans.layout_of(values, by_residue=False), plan_sizes(shape, count), device, languages
    )


def plan_sizes(shape: Shape, count: int) -> Sizes:
    """What a choice between plans depends on: no lists of tokens, which each plan has its own of."""
    return sizes_of(shape, count).bucketed()


def tiles_of(asked: Question) -> tuple[Tile, ...]:
    """One for each pass."""
    return tuple(order[0].tile for order in candidates(asked))


def candidates(asked: Question) -> list[list[Candidate]]:
    """Of each pass, the most promising first."""
    sizes = bucket(asked)
    if isinstance(sizes, Sizes):
        orders = (ranked(one, sizes, asked.device, asked.languages) for one in asked.layout.passes)
        return [[Candidate(found.tile, found.total) for found in order] for order in orders]
    tiles = (backward_candidates(asked.kind, one, sizes, asked.device, asked.languages) for one in asked.layout.passes)
    return [[Candidate(tile, None) for tile in order] for order in tiles]


def bucket(asked: Question) -> Sizes | Extent:
    """What tiles depend on, lengths rounded up to powers of two: a new length rarely takes other tiles."""
    shape = asked.shape
    sizes = sizes_of(shape, asked.count, asked.tokens).bucketed()
    if asked.kind == FORWARD:
        return sizes
    by_queries = asked.kind.direction == "queries"
    return Extent(
        rows=sizes.rows if by_queries else sizes.keys,
        columns=sizes.keys if by_queries else sizes.rows,
        kv_len=sizes.kv_len,
        count=asked.count,
        group=1 if by_queries else shape.group_size,
        head_dim=shape.widest,
        itemsize=shape.itemsize,
    )


def sizes_of(shape: Shape, count: int, tokens: TokenCounts = ()) -> Sizes:
    """The sizes of a call for `count` (batch, head) pairs, with the lengths of its lists of tokens."""
    given = shape.given
    return Sizes(
        q_len=shape.q_len,
        kv_len=shape.kv_len,
        first=shape.q_offset,
        count=count,
        group=max(shape.group_size, 1),
        head_dim=shape.widest,
        itemsize=shape.itemsize,
        tokens=tuple(tokens),
        given=None if given == (0, shape.kv_len) else given,
    )
