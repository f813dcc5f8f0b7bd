"""The tiles that suit a device: of the forward those predicted to take the least time, of the backward the usual."""

from __future__ import annotations

from dataclasses import dataclass

from spattn.backends.request import Plans, Request
from spattn.backends.triton.backward_tiles import Extent, backward_candidates
from spattn.backends.triton.cost.choice import ranked
from spattn.backends.triton.cost.plans import prefers_classes
from spattn.backends.triton.cost.sizes import Sizes, power_of_two
from spattn.backends.triton.devices import described, sizes_of
from spattn.backends.triton.schedule import Job
from spattn.backends.triton.tiles import Tile
from spattn.codegen.kinds import FORWARD


@dataclass(frozen=True)
class Candidate:
    """A tile of a pass; `predicted` are microseconds, None for gradients, of which none are predicted."""

    tile: Tile
    predicted: float | None


def suits_classes(plans: Plans, values: tuple[bool, ...], request: Request, count: int) -> bool:
    """Are the rows of a group's `count` (batch, head) pairs tiled by residue classes, where its plan has them?"""
    layout = plans.layout_of(values)
    if not layout.in_classes or count == 0:
        return True
    sizes = sizes_of(request, (), (), count).bucketed()
    return prefers_classes(layout, plans.layout_of(values, classes=False), sizes, described(request.q.device))


def tiles_of(job: Job) -> tuple[Tile, ...]:
    """One for each pass."""
    return tuple(order[0].tile for order in candidates(job))


def candidates(job: Job) -> list[list[Candidate]]:
    """Of each pass, the most promising first."""
    device, sizes = described(job.request.q.device), bucket(job)
    if isinstance(sizes, Sizes):
        orders = (ranked(one, sizes, device) for one in job.layout.passes)
        return [[Candidate(found.tile, found.total) for found in order] for order in orders]
    tiles = (backward_candidates(job.kind, one, sizes, device) for one in job.layout.passes)
    return [[Candidate(tile, None) for tile in order] for order in tiles]


def bucket(job: Job) -> Sizes | Extent:
    """What tiles depend on, lengths rounded up to powers of two: a new length rarely takes other tiles."""
    if job.kind == FORWARD:
        roles = [role for one in job.texts for role in one.roles]
        return sizes_of(job.request, roles, job.given, job.count).bucketed()
    request = job.request
    q_len, kv_len = power_of_two(request.q_len), power_of_two(request.kv_len)
    first = kv_len - q_len if request.q_offset + request.q_len == request.kv_len else request.q_offset
    queries, keys = (first, first + q_len), (0, kv_len)
    by_queries = job.kind.direction == "queries"
    return Extent(
        rows=queries if by_queries else keys,
        columns=keys if by_queries else queries,
        kv_len=kv_len,
        count=job.count,
        group=1 if by_queries else request.group_size,
        head_dim=max(request.q.shape[-1], request.v.shape[-1]),
        itemsize=request.q.dtype.itemsize,
    )
