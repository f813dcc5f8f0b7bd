"""A layout's kernels on tensors: one launch a pass, in order; partial results stay in float32 between passes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spattn.backends.request import Request
from spattn.backends.triton.prepare import Prepared
from spattn.backends.triton.run import likeness, run
from spattn.backends.triton.tiles import Tile, choose, expected_keys, next_power
from spattn.codegen.module import ModuleSource, PassSource
from spattn.codegen.parameters import TokenList
from spattn.codegen.parts import SCANNED
from spattn.expressions.nodes import And, Int, Le, Sym
from spattn.layout.ir import Grid, Layout, Listed, Pass, box_sides
from spattn.relation.lattice import Affine, Runs

INTERPRETED_SHARED = 227 * 1024  # the interpreter has no limit; Hopper's keeps its tiles those of an H200


@dataclass(frozen=True)
class Outputs:
    """Where the kernels write: out in the dtype of q, lse in float32, each row by exactly one final store."""

    out: torch.Tensor
    lse: torch.Tensor

    @staticmethod
    def of(request: Request) -> Outputs:
        """Uninitialised outputs for a request."""
        shape = (request.batch_size, request.num_q_heads, request.q_len)
        out = torch.empty((*shape, request.v.shape[-1]), dtype=request.q.dtype, device=request.q.device)
        return Outputs(out, torch.empty(shape, dtype=torch.float32, device=request.q.device))


def launch(
    layout: Layout,
    source: ModuleSource,
    kernels: dict[str, Any],
    request: Request,
    outputs: Outputs,
    pairs: NDArray[np.int64] | None,
    tile: Tile | None = None,
) -> None:
    """Runs every pass of `layout` for all (batch, head) pairs, or those listed."""
    rows = (request.q_offset, request.q_offset + request.q_len)
    prepared = Prepared(request.tensors, request.kv_len, request.num_q_heads, rows, request.q.device)
    count = request.batch_size * request.num_q_heads if pairs is None else len(pairs)
    listed = outputs.lse if pairs is None else _pairs(pairs.tobytes(), request.q.device)
    parts = _Parts.of(source, outputs)
    q, scale = _positive_scale(request)
    for one, text in zip(layout.passes, source.passes, strict=True):
        chosen = tile or _chosen(
            one, q.dtype, max(q.shape[-1], request.v.shape[-1]), _rows_each(one, request), request.kv_len, q.device
        )
        if _all_skipped(one, request):
            continue
        tiles = _tile_count(one, request, prepared, chosen)
        if tiles * count == 0:
            continue
        programs = tiles * count
        spoiled = torch.empty(programs if text.leaky else 0, dtype=torch.int8, device=q.device)
        fixed = [*_common_arguments(q, request, outputs), *parts.of_pass(text), listed, spoiled]
        tensors = [prepared.arguments(role) for role in text.roles]
        group_size = request.num_q_heads // request.k.shape[1]
        arguments = [
            *fixed,
            *(argument for arguments in tensors for argument in arguments),
            request.num_q_heads,
            group_size,
            request.q_len,
            request.kv_len,
            request.q_offset,
            tiles,
            programs,
            scale * math.log2(math.e),
        ]
        kernel = kernels[text.name]
        constants = _constants(request, chosen, paired=pairs is not None)
        alike = likeness(fixed, tensors, group_size)
        run(kernel, programs, arguments, alike, (*constants, False), chosen)
        if text.leaky:
            run(kernel, -(-programs // SCANNED), arguments, alike, (*constants, True), _unhurried(chosen))


def _constants(request: Request, tile: Tile, paired: bool) -> tuple[Any, ...]:
    """What Triton compiles in, in the order of the kernels' signature, but for CAREFUL."""
    head_dim, v_head_dim = request.q.shape[-1], request.v.shape[-1]
    precision = "tf32" if request.tf32 else "ieee"
    widths = next_power(head_dim), next_power(v_head_dim)
    return (head_dim, v_head_dim, *widths, tile.block_m, tile.block_n, paired, precision)


@dataclass
class _Parts:
    """Results between passes: what one writes the next reads, never in place, since a careful launch reads again."""

    spare: list[tuple[torch.Tensor, torch.Tensor]]

    @staticmethod
    def of(source: ModuleSource, outputs: Outputs) -> _Parts:
        """As many buffers as the chain of passes needs, two at most."""
        between = sum(not one.final for one in source.passes)
        buffers = [
            (torch.empty_like(outputs.out, dtype=torch.float32), torch.empty_like(outputs.lse))
            for _ in range(min(between, 2))
        ]
        return _Parts(buffers or [(outputs.lse, outputs.lse)])

    def of_pass(self, one: PassSource) -> list[torch.Tensor]:
        """What a pass reads and what it writes, each with its lse."""
        if not (one.resume or not one.final):
            return [*self.spare[0], *self.spare[0]]
        read, write = self.spare[-1], self.spare[0]
        self.spare.reverse()
        return [*read, *write]


@lru_cache(maxsize=256)
def _unhurried(tile: Tile) -> Tile:
    """The tile of a careful launch, which is rare and loads nothing ahead."""
    return replace(tile, num_stages=1)


@lru_cache(maxsize=256)
def _pairs(pairs: bytes, device: torch.device) -> torch.Tensor:
    """The pairs of a group as int32 on the device, sent there once."""
    return torch.from_numpy(np.frombuffer(pairs, np.int64).astype(np.int32)).to(device)


@lru_cache(maxsize=1024)
def _chosen(one: Pass, dtype: torch.dtype, head_dim: int, rows: int, kv_len: int, device: torch.device) -> Tile:
    return choose(one, dtype, head_dim, rows, expected_keys(one, kv_len), _shared(device))


@lru_cache(maxsize=64)
def _shared(device: torch.device) -> int:
    """Bytes of shared memory that a program may have."""
    if device.type != "cuda":
        return INTERPRETED_SHARED
    properties = torch.cuda.get_device_properties(device)
    own = getattr(properties, "shared_memory_per_block_optin", 0) or properties.shared_memory_per_block
    return int(own)


def _all_skipped(one: Pass, request: Request) -> bool:
    """Do earlier passes own every row? Known where what they own is an interval of rows."""
    match one.skip:
        case And((Le(Int(first), Sym("q")), Le(Sym("q"), Int(last)))):
            return first <= request.q_offset and request.q_offset + request.q_len - 1 <= last
    return False


def _positive_scale(request: Request) -> tuple[torch.Tensor, float]:
    """The kernels take the maximum before they scale: a scale of 0 or less moves into q."""
    if request.scale > 0:
        return request.q, request.scale
    return (-request.q, -request.scale) if request.scale < 0 else (torch.zeros_like(request.q), 1.0)


def _common_arguments(
    q: torch.Tensor,
    request: Request,
    outputs: Outputs,
) -> list[Any]:
    arguments: list[Any] = []
    for tensor in (q, request.k, request.v, outputs.out):
        arguments += [tensor, *tensor.stride()[:3]]
    return [*arguments, outputs.lse]


def _rows_each(one: Pass, request: Request) -> int:
    """Rows in each residue class, at most."""
    match one.rows:
        case Affine(step, _):
            return -(-request.q_len // step)
        case Runs(period, run, _):
            return (request.q_len // period + 2) * run
    return request.q_len


def _tile_count(one: Pass, request: Request, prepared: Prepared, tile: Tile) -> int:
    """Row tiles of a pass for each (batch, head), some of them perhaps without rows."""
    if isinstance(one.rows, Listed):
        return -(-prepared.size(TokenList(one.rows.tokens)) // tile.block_m)
    if isinstance(one.rows, Grid):
        sides = box_sides(tile.block_m, len(one.rows.shape))
        return math.prod(-(-n // side) for n, side in zip(one.rows.shape, sides, strict=True))
    if one.block > 1:
        first = request.q_offset // one.block
        last = -(-(request.q_offset + request.q_len) // one.block)
        return (last - first) * -(-one.block // tile.block_m)
    return -(-_rows_each(one, request) // tile.block_m) * one.residues
