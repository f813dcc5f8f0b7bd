"""A layout's kernels on tensors: one launch a pass, in order; partial results stay in float32 between passes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spattn.backends.request import Request
from spattn.backends.triton.prepare import Prepared
from spattn.backends.triton.tiles import Tile, choose, next_power
from spattn.codegen.module import ModuleSource, PassSource
from spattn.codegen.parameters import TokenList
from spattn.layout.ir import Layout, Listed, Pass
from spattn.relation.lattice import Affine, Runs


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
    listed = outputs.lse if pairs is None else torch.from_numpy(pairs.astype(np.int32)).to(request.q.device)
    merged = any(p.resume for p in source.passes)
    part = torch.empty_like(outputs.out, dtype=torch.float32) if merged else outputs.lse
    part_lse = torch.empty_like(outputs.lse) if merged else outputs.lse
    q, scale = _positive_scale(request)
    common = _common_arguments(q, request, outputs, part, part_lse, listed)
    for one, text in zip(layout.passes, source.passes, strict=True):
        chosen = tile or choose(one, q.dtype, max(q.shape[-1], request.v.shape[-1]), _rows_each(one, request))
        tiles = _tile_count(one, text, request, prepared, chosen)
        if tiles * count == 0:
            continue
        tensors = [argument for role in text.roles for argument in prepared.arguments(role)]
        kernels[text.name][(tiles * count,)](
            *common,
            *tensors,
            request.num_q_heads,
            request.num_q_heads // request.k.shape[1],
            request.q_len,
            request.kv_len,
            request.q_offset,
            tiles,
            scale * math.log2(math.e),
            HEAD_DIM=q.shape[-1],
            V_HEAD_DIM=request.v.shape[-1],
            BLOCK_D=next_power(q.shape[-1]),
            BLOCK_DV=next_power(request.v.shape[-1]),
            BLOCK_M=chosen.block_m,
            BLOCK_N=chosen.block_n,
            PAIRED=pairs is not None,
            PRECISION="tf32" if request.tf32 else "ieee",
            num_warps=chosen.num_warps,
            num_stages=chosen.num_stages,
        )


def _positive_scale(request: Request) -> tuple[torch.Tensor, float]:
    """The kernels take the maximum before they scale: a scale of 0 or less moves into q."""
    if request.scale > 0:
        return request.q, request.scale
    return (-request.q, -request.scale) if request.scale < 0 else (torch.zeros_like(request.q), 1.0)


def _common_arguments(
    q: torch.Tensor,
    request: Request,
    outputs: Outputs,
    part: torch.Tensor,
    part_lse: torch.Tensor,
    pairs: torch.Tensor,
) -> list[Any]:
    arguments: list[Any] = []
    for tensor in (q, request.k, request.v, outputs.out):
        arguments += [tensor, *tensor.stride()[:3]]
    return [*arguments, outputs.lse, part, part_lse, pairs]


def _rows_each(one: Pass, request: Request) -> int:
    """Rows in each residue class, at most."""
    match one.rows:
        case Affine(step, _):
            return -(-request.q_len // step)
        case Runs(period, run, _):
            return (request.q_len // period + 2) * run
    return request.q_len


def _tile_count(one: Pass, text: PassSource, request: Request, prepared: Prepared, tile: Tile) -> int:
    """Row tiles of a pass for each (batch, head), some of them perhaps without rows."""
    if isinstance(one.rows, Listed):
        return -(-prepared.size(TokenList(one.rows.tokens)) // tile.block_m)
    if one.block > 1:
        first = request.q_offset // one.block
        last = -(-(request.q_offset + request.q_len) // one.block)
        return (last - first) * -(-one.block // tile.block_m)
    return -(-_rows_each(one, request) // tile.block_m) * one.residues
