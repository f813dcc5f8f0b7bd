"""The tiles that suit a device: of the forward those predicted to take the least time, of the backward the usual."""

from __future__ import annotations

from spattn.backends.triton.backward_tiles import Extent, backward_tile
from spattn.backends.triton.cost.choice import choose
from spattn.backends.triton.cost.sizes import Sizes, power_of_two
from spattn.backends.triton.devices import described, sizes_of
from spattn.backends.triton.schedule import Job
from spattn.backends.triton.tiles import Tile
from spattn.codegen.kinds import FORWARD


def tiles_of(job: Job) -> tuple[Tile, ...]:
    """One for each pass."""
    device = described(job.request.q.device)
    if job.kind == FORWARD:
        sizes = forward_sizes(job)
        return tuple(choose(one, sizes, device) for one in job.layout.passes)
    return tuple(backward_tile(job.kind, one, _extent(job), device) for one in job.layout.passes)


def forward_sizes(job: Job) -> Sizes:
    """The sizes of a job of the forward."""
    roles = [role for one in job.texts for role in one.roles]
    return sizes_of(job.request, roles, job.given, job.count)


def _extent(job: Job) -> Extent:
    """The extent of a job, lengths rounded up to powers of two: a new length rarely takes another tile."""
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
        group=1 if by_queries else request.num_q_heads // request.k.shape[1],
        head_dim=max(request.q.shape[-1], request.v.shape[-1]),
        itemsize=request.q.dtype.itemsize,
    )
