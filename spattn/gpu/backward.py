"""The backward pass: dq along the layout, which leaves what dk and dv need of each query along its transposition.

Nothing is added from several programs at once: the same call gives the same bits. That takes seven products for a pair.
Five would do if the programs of keys added to dq; on an H200 this made portable kernels 22 to 33 % slower, whether they
added from registers or in bulk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from spattn.call.request import CompiledPattern, Request
from spattn.codegen.kernel_specs import GRAD_KV, GRAD_Q
from spattn.codegen.model import ROW_STATS
from spattn.cost.tile_choice import suits_classes
from spattn.gpu.devices import described
from spattn.gpu.forward import current, measuring
from spattn.gpu.heads import key_heads, key_pairs, query_heads, sent
from spattn.gpu.launch import Launch, Options, Outputs, launched
from spattn.gpu.modules import Modules
from spattn.gpu.problem import Problem

Groups = Mapping[tuple[bool, ...], NDArray[np.int64]]


@dataclass(frozen=True)
class Gradients:
    """Where the kernels write, in the dtype of q; None for k and v where nobody asks for theirs."""

    q: torch.Tensor
    k: torch.Tensor | None
    v: torch.Tensor | None

    @staticmethod
    def of(q: torch.Tensor, k: torch.Tensor | None, v: torch.Tensor | None) -> Gradients:
        """Uninitialised gradients of these tensors, laid out as they are."""
        return Gradients(_like(q), *(None if one is None else _like(one) for one in (k, v)))

    def clear(self) -> None:
        """All zero."""
        for one in (self.q, self.k, self.v):
            _ = None if one is None else one.zero_()


@dataclass(frozen=True)
class Rows:
    """What the gradients need of the queries, d_out of any dtype and the others float32.

    Attributes:
        saved: What the forward pass answered.
        d_out, d_lse: Gradients of these.
        row_stats: For dq to write, `[batch, num_q_heads, q_len, ROW_STATS]`: lse in base 2, +inf for rows without keys,
            since their weights are 0; then delta = sum(d_out * out) - d_lse.
    """

    saved: Outputs
    d_out: torch.Tensor
    d_lse: torch.Tensor
    row_stats: torch.Tensor

    @staticmethod
    def of(saved: Outputs, d_out: torch.Tensor, d_lse: torch.Tensor | None) -> Rows:
        """None stands for a gradient of zero."""
        row_stats = torch.empty((*saved.lse.shape, ROW_STATS), dtype=torch.float32, device=d_out.device)
        return Rows(saved, d_out, zero(d_out.device).expand(saved.lse.shape) if d_lse is None else d_lse, row_stats)


@lru_cache(maxsize=64)
def zero(device: torch.device) -> torch.Tensor:
    """A zero to be read in the place of all that nobody gave."""
    return torch.zeros((), dtype=torch.float32, device=device)


@dataclass(frozen=True)
class Ran:
    """What ran for the gradients of a request.

    Attributes:
        queries: Launches for dq.
        keys: Launches for dk and dv.
        summed: Were these added up from shares of several groups of heads, outside of any launch?
    """

    queries: list[Launch]
    keys: list[Launch]
    summed: bool


def differentiate(
    plans: CompiledPattern,
    request: Request,
    saved: Outputs,
    d_out: torch.Tensor,
    d_lse: torch.Tensor | None,
    into: Gradients,
    options: Options,
) -> Ran | None:
    """Fills the gradients of a request; what ran, None where nothing had to.

    Args:
        plans: The compiled pattern.
        request: The call.
        saved: What the forward pass answered.
        d_out: Gradient of out, its last dimension dense.
        d_lse: Gradient of lse; None for zero.
        into: Where to write.
        options: How launches are chosen; where they name no tuner, one keeps what the plans' records hold.
    """
    if request.q.numel() == 0 or request.positions.num_keys == 0:
        into.clear()
        return None
    with current(request.q.device):
        return _Backward(plans, request, Rows.of(saved, d_out, d_lse), into, measuring(plans, options)).run()


def dense_rows(d_out: torch.Tensor | None, out: torch.Tensor) -> torch.Tensor:
    """The gradient of out as kernels read it: one may come with any strides, or not at all for zero."""
    if d_out is None:
        return torch.zeros_like(out)
    return d_out if _is_dense(d_out) else d_out.contiguous()


@dataclass
class _Backward:
    plans: CompiledPattern
    request: Request
    rows: Rows
    into: Gradients
    options: Options

    def run(self) -> Ran:
        request, into = self.request, self.into
        groups = self.plans.groups(request.batch_size, request.num_q_heads)
        own = [np.unique(key_pairs(request, pairs)) for pairs in groups.values()]
        summed = sum(map(len, own)) > request.batch_size * request.num_kv_heads  # groups that share a key head
        listed = {values: pairs if len(groups) > 1 else None for values, pairs in groups.items()}
        queries = [self.queries(values, pairs) for values, pairs in listed.items()]
        keys = []
        if into.k is not None and into.v is not None:
            totals = into.k, into.v
            if summed:
                self.summed_keys(groups, own, totals)
            else:
                keys = [self.keys(values, pairs, totals) for values, pairs in listed.items()]
        return Ran(queries, keys, summed)

    def modules(self, values: tuple[bool, ...], pairs: NDArray[np.int64] | None) -> Modules:
        """The kernels of a group, whose rows are tiled by residue classes if those of its forward pass are."""
        count, device = query_heads(self.request, pairs).count, described(self.request.q.device)
        by_residue = self.options.tile is not None or suits_classes(
            self.plans, values, self.request.shape, count, device, self.options.languages
        )
        return Modules(self.plans, values, by_residue, backward=True)

    def queries(self, values: tuple[bool, ...], pairs: NDArray[np.int64] | None) -> Launch:
        """dq of a group of heads."""
        request, rows = self.request, self.rows
        given = [request.q, request.k, request.v, rows.d_out, rows.saved.out, rows.d_lse]
        tensors = [*given, self.into.q, rows.saved.lse, rows.row_stats]
        modules, heads = self.modules(values, pairs), query_heads(request, pairs)
        layout = self.plans.layout_of(values, modules.by_residue)
        problem = Problem(GRAD_Q, layout, modules, request, heads, self.options.languages)
        return launched(problem, tensors, self.options)

    def summed_keys(
        self,
        groups: Groups,
        own: list[NDArray[np.int64]],
        into: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """dk and dv, one group's share added after the other, each to the key heads that it reads."""
        totals = [torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in into]
        parts = torch.empty_like(totals[0]), torch.empty_like(totals[1])
        for (values, pairs), heads in zip(groups.items(), own, strict=True):
            self.keys(values, pairs, parts)
            where = sent(heads.astype(np.int32).tobytes(), self.request.q.device).long()
            for total, part in zip((x.flatten(0, 1) for x in totals), (x.flatten(0, 1) for x in parts), strict=True):
                total.index_copy_(0, where, total.index_select(0, where) + part.index_select(0, where))
        for gradient, total in zip(into, totals, strict=True):
            gradient.copy_(total)

    def keys(
        self,
        values: tuple[bool, ...],
        pairs: NDArray[np.int64] | None,
        into: tuple[torch.Tensor, torch.Tensor],
    ) -> Launch:
        """The share of a group of heads in dk and dv."""
        request, rows = self.request, self.rows
        tensors = [request.q, request.k, request.v, rows.d_out, *into, rows.row_stats]
        modules, heads = self.modules(values, pairs), key_heads(request, pairs)
        layout = self.plans.transposed_of(values, modules.by_residue)
        problem = Problem(GRAD_KV, layout, modules, request, heads, self.options.languages)
        return launched(problem, tensors, self.options)


def _like(tensor: torch.Tensor) -> torch.Tensor:
    """An uninitialised tensor with the same layout, where that is dense in the last dimension."""
    made = torch.empty_like(tensor)
    return made if _is_dense(made) else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def is_alike(tensor: torch.Tensor) -> bool:
    """Does torch, left alone, lay its gradient out as `Gradients.of` does?"""
    return _is_dense(torch.empty_like(tensor, device="meta"))


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.stride(-1) == 1 or tensor.shape[-1] == 1
