"""A layout's kernels on tensors: the schedule of these shapes, made once, runs on the call's addresses."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spattn.call.request import Request
from spattn.codegen.kinds import FORWARD, Kind
from spattn.codegen.module import ModuleSource
from spattn.cost.tile import Tile
from spattn.cost.tile_choice import tiles_of
from spattn.gpu.heads import Heads, query_heads
from spattn.gpu.inputs import Frame, Inputs, numbers_of
from spattn.gpu.launch_plan import LaunchPlan, Problem, plan_launches
from spattn.gpu.tuning import Tuner
from spattn.layout.ir import Layout

MAX_PLANS = 1024
_plans: OrderedDict[Any, LaunchPlan] = OrderedDict()


@dataclass(frozen=True)
class Outputs:
    """Where the kernels write: out in the dtype of q, lse in float32, each row by exactly one final store."""

    out: torch.Tensor
    lse: torch.Tensor

    @staticmethod
    def of(request: Request) -> Outputs:
        """Uninitialised outputs for a request."""
        batch, heads, q_len, _ = request.q.shape
        out = torch.empty((batch, heads, q_len, request.v.shape[-1]), dtype=request.q.dtype, device=request.q.device)
        return Outputs(out, torch.empty((batch, heads, q_len), dtype=torch.float32, device=request.q.device))


def launch(
    layout: Layout,
    source: ModuleSource,
    kernels: dict[str, Any],
    request: Request,
    outputs: Outputs,
    pairs: NDArray[np.int64] | None,
    tile: Tile | tuple[Tile, ...] | None = None,
    tuner: Tuner | None = None,
) -> Launch:
    """Runs every pass of `layout` for all (batch, head) pairs, or those listed; with one tile, or one for each pass."""
    request = _positively_scaled(request)
    tensors = [request.q, request.k, request.v, outputs.out, outputs.lse]
    return launched(FORWARD, layout, source, kernels, request, tensors, query_heads(request, pairs), tile, tuner)


def launched(
    kind: Kind,
    layout: Layout,
    source: ModuleSource,
    kernels: dict[str, Any],
    request: Request,
    tensors: list[torch.Tensor],
    heads: Heads,
    tile: Tile | tuple[Tile, ...] | None,
    tuner: Tuner | None = None,
) -> Launch:
    """Runs every pass of one kind.

    Args:
        kind: What is computed.
        layout: Along which passes.
        source: The module.
        kernels: What `load` made of it.
        request: The call.
        tensors: Those that the kind names.
        heads: Whom the passes serve.
        tile: For every pass, or one for each, instead of those that suit the device.
        tuner: Measures which suit it; else that is predicted.
    """
    texts = source.of(kind)
    inputs, frame = Inputs(texts, request), Frame.of(request)
    made = inputs.tensors(request.tensors)
    rest = iter(made)
    numbers = tuple(tuple(numbers_of(role, next(rest), frame) for role in one.roles) for one in texts)
    device = request.q.device
    aligned = 0
    for tensor in (*tensors, *made):
        aligned = aligned << 1 | (tensor.data_ptr() % 16 == 0)
    shapes = tuple(tensor.stride()[:3] for tensor in tensors[: len(kind.operands)])
    kinds = tensors[0].dtype, device, *(tensor.dtype for tensor in tensors[3:]), *(tensor.dtype for tensor in made)
    sizes = request.q.shape, request.k.shape, request.v.shape
    options = request.scale, request.positions, request.tf32
    key = (kind.name, source, kinds, sizes, shapes, aligned, *options, heads, tile, tuner is not None, numbers)
    schedule = _plans.get(key)
    if schedule is None:
        paired = heads.listed is not None
        job = Problem(kind, layout, texts, kernels, request, shapes, numbers, heads.count, paired)
        tuned = tuner and tuner.tiles(
            job, source.text, lambda one: Launch(one, heads.on(device), inputs).run(tensors, made)
        )
        tiles = (tile,) * len(texts) if isinstance(tile, Tile) else tile or tuned or tiles_of(job)
        schedule = plan_launches(job, tiles)
        if tuned or not tuner:  # else a later call may measure
            _plans[key] = schedule
        if len(_plans) > MAX_PLANS:
            _plans.popitem(last=False)
    done = Launch(schedule, heads.on(device), inputs)
    done.run(tensors, made)
    return done


@dataclass(frozen=True)
class Launch:
    """What ran: the schedule, the (batch, head) pairs where these are listed, and how the passes get their inputs."""

    schedule: LaunchPlan
    pairs: torch.Tensor | None
    inputs: Inputs

    def run(self, tensors: list[torch.Tensor], made: list[torch.Tensor]) -> None:
        """Runs it, perhaps again, for tensors of the same shapes, strides, dtypes and alignment.

        Args:
            tensors: Those of the kind.
            made: The run-time tensors of all passes.
        """
        if self.schedule.steps:
            pairs = tensors[-1] if self.pairs is None else self.pairs
            self.schedule.run([*tensors, pairs, *made])


def _positively_scaled(request: Request) -> Request:
    """The kernels take the maximum before they scale: a scale of 0 or less moves into q."""
    if request.scale > 0:
        return request
    if request.scale < 0:
        return replace(request, q=-request.q, scale=-request.scale)
    return replace(request, q=torch.zeros_like(request.q), scale=1.0)
