"""A layout's kernels on tensors: planned, launched, and kept to be launched again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from spattn.call.positions import out_strides
from spattn.call.prepared import Prepared
from spattn.call.request import Request
from spattn.codegen.kernel_specs import FORWARD
from spattn.codegen.tile import Tile
from spattn.cost.tile_choice import tiles_of
from spattn.gpu.extent import Extent
from spattn.gpu.heads import query_heads
from spattn.gpu.inputs import Inputs
from spattn.gpu.launch_plan import LaunchPlan
from spattn.gpu.launches import Launches
from spattn.gpu.modules import Modules
from spattn.gpu.problem import Problem
from spattn.gpu.tuning import Tuner
from spattn.layout.ir import Layout


@dataclass(frozen=True)
class Outputs:
    """Where the kernels write: out in the dtype of q, lse in float32, each row by exactly one final store."""

    out: torch.Tensor
    lse: torch.Tensor

    @staticmethod
    def of(request: Request) -> Outputs:
        """Outputs for a request, not initialised unless it has padding, which no kernel writes."""
        batch, heads, q_len, _ = request.q.shape
        shape = batch, heads, q_len, request.v.shape[-1]
        strides = out_strides(shape, packed=request.positions.is_packed)
        out = torch.empty_strided(shape, strides, dtype=request.q.dtype, device=request.q.device)
        found = Outputs(out, torch.empty((batch, heads, q_len), dtype=torch.float32, device=request.q.device))
        if request.positions.by_request:
            found.clear()
        return found

    def clear(self) -> None:
        """As rows without keys have them."""
        self.out.zero_()
        self.lse.fill_(-torch.inf)


@dataclass(frozen=True)
class Options:
    """How launches are chosen.

    Attributes:
        languages: Which may be taken.
        tile: For every pass, or one for each, instead of those that suit the device.
        tuner: Measures which suit it; else that is predicted.
    """

    languages: tuple[str, ...]
    tile: Tile | tuple[Tile, ...] | None = None
    tuner: Tuner | None = None


def launch(
    layout: Layout,
    modules: Modules,
    request: Request,
    outputs: Outputs,
    pairs: NDArray[np.int64] | None,
    options: Options,
) -> Launch:
    """Runs every pass of `layout` for all (batch, head) pairs, or those listed."""
    request = _positively_scaled(request)
    tensors = [request.q, request.k, request.v, outputs.out, outputs.lse]
    heads = query_heads(request, pairs)
    return launched(Problem(FORWARD, layout, modules, request, heads, options.languages), tensors, options)


def launched(problem: Problem, tensors: list[torch.Tensor], options: Options) -> Launch:
    """Runs every pass of a problem.

    Args:
        problem: The passes, and the call.
        tensors: Those that the kind names.
        options: How tiles are chosen.
    """
    done = planned(problem, tensors, _tiles(problem, tensors, options))
    done.run(tensors, problem.request.tensors)
    return done


def planned(problem: Problem, tensors: Sequence[torch.Tensor], tiles: Sequence[Tile]) -> Launch:
    """The launches of a problem with these tiles; nothing runs."""
    inputs = Inputs(problem.modules.passes(problem.kind, tiles), problem.request)
    extent = Extent.of(problem.request, problem.kind, tensors, inputs.numbers(problem.request.tensors))
    plan = LaunchPlan(problem, tiles, extent)
    launches = plan.at(extent)
    assert launches is not None
    return Launch(plan, extent, launches, problem.heads.on(problem.request.q.device), inputs)


def _tiles(problem: Problem, tensors: list[torch.Tensor], options: Options) -> tuple[Tile, ...]:
    if isinstance(options.tile, Tile):
        return (options.tile,) * len(problem.layout.passes)
    if options.tile is not None:
        return options.tile
    measured = None
    if options.tuner is not None:

        def trial(tiles: Sequence[Tile]) -> Launch:
            return planned(problem, tensors, tiles)

        measured = options.tuner.tiles(problem, trial, tensors)
    return measured or tiles_of(problem)


@dataclass(frozen=True)
class Launch:
    """What ran.

    Attributes:
        plan: For calls like it.
        extent: Its numbers.
        launches: At these numbers.
        heads: The (batch, head) pairs, where these are listed.
        inputs: How the passes get their run-time tensors.
    """

    plan: LaunchPlan
    extent: Extent
    launches: Launches
    heads: torch.Tensor | None
    inputs: Inputs

    def run(self, tensors: list[torch.Tensor], prepared: Prepared) -> None:
        """Runs it, perhaps again, for tensors of the same shapes, strides, dtypes and alignment.

        Args:
            tensors: Those of the kind.
            prepared: The pattern's.
        """
        if self.launches.each:
            heads = tensors[-1] if self.heads is None else self.heads
            self.launches.run([*tensors, heads, *self.inputs.tensors(prepared)])


def _positively_scaled(request: Request) -> Request:
    """The kernels take the maximum before they scale: a scale of 0 or less moves into q."""
    if request.scale > 0:
        return request
    if request.scale < 0:
        return replace(request, q=-request.q, scale=-request.scale)
    return replace(request, q=torch.zeros_like(request.q), scale=1.0)
