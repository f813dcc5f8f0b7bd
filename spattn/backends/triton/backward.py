"""The backward pass: what each query needs first, then dq along the layout and dk, dv along its transposition.

Nothing is added from several programs at once: the same call gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spattn.backends.request import Plans, Request
from spattn.backends.triton.forward import current
from spattn.backends.triton.heads import key_heads, key_pairs, query_heads, sent
from spattn.backends.triton.launch import Outputs, launched
from spattn.backends.triton.load import load
from spattn.backends.triton.row_terms import RowTerms, row_terms
from spattn.backends.triton.tiles import Tile
from spattn.codegen.kinds import D_KEYS, D_QUERIES

Groups = Mapping[tuple[bool, ...], NDArray[np.int64]]


@dataclass(frozen=True)
class Gradients:
    """Where the kernels write, in the dtype of q; None for what nobody asks for."""

    q: torch.Tensor | None
    k: torch.Tensor | None
    v: torch.Tensor | None

    @staticmethod
    def of(request: Request, q: bool = True, keys: bool = True) -> Gradients:
        """Uninitialised gradients of q, and of k and v, laid out as these are."""
        k, v = (_like(request.k), _like(request.v)) if keys else (None, None)
        return Gradients(_like(request.q) if q else None, k, v)


def differentiate(
    plans: Plans,
    request: Request,
    saved: Outputs,
    d_out: torch.Tensor | None,
    d_lse: torch.Tensor | None,
    into: Gradients,
    tile: Tile | None = None,
) -> None:
    """Fills the gradients of a request.

    Args:
        plans: The compiled pattern.
        request: The call.
        saved: What the forward pass answered.
        d_out: Gradient of out, any strides; None for zero.
        d_lse: Gradient of lse; None for zero.
        into: Where to write.
        tile: For every pass, instead of the one that suits the device.
    """
    if request.q.numel() == 0 or request.kv_len == 0:
        for one in (into.q, into.k, into.v):
            _ = None if one is None else one.zero_()
        return
    with current(request.q.device):
        _Backward(plans, request, into, tile).run(saved, d_out, d_lse)


@dataclass
class _Backward:
    plans: Plans
    request: Request
    into: Gradients
    tile: Tile | None

    def run(self, saved: Outputs, d_out: torch.Tensor | None, d_lse: torch.Tensor | None) -> None:
        request = self.request
        groups = self.plans.groups(request.batch_size, request.num_q_heads)
        d_out = torch.zeros_like(saved.out) if d_out is None else _dense_rows(d_out)
        terms = row_terms(self.kernels(next(iter(groups))), saved, d_out, d_lse)
        if self.into.q is not None:
            for values, pairs in groups.items():
                self.queries(values, pairs if len(groups) > 1 else None, d_out, terms, self.into.q)
        if self.into.k is not None and self.into.v is not None:
            self.all_keys(groups, d_out, terms, (self.into.k, self.into.v))

    def kernels(self, values: tuple[bool, ...]) -> dict[str, Any]:
        source = self.plans.backward_module_of(values)
        return load(self.plans.publish(source.text), source.text)

    def queries(
        self,
        values: tuple[bool, ...],
        pairs: NDArray[np.int64] | None,
        d_out: torch.Tensor,
        terms: RowTerms,
        dq: torch.Tensor,
    ) -> None:
        """dq of a group of heads."""
        request = self.request
        tensors = [request.q, request.k, request.v, d_out, dq, terms.lse2, terms.delta]
        source, layout = self.plans.backward_module_of(values), self.plans.layout_of(values)
        heads = query_heads(request, pairs)
        launched(D_QUERIES, layout, source, self.kernels(values), request, tensors, heads, self.tile)

    def all_keys(
        self, groups: Groups, d_out: torch.Tensor, terms: RowTerms, into: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        """dk and dv; where query heads of several groups read one key head, one group is added after the other."""
        found = [np.unique(key_pairs(self.request, pairs)) for pairs in groups.values()]
        if sum(map(len, found)) == self.request.batch_size * self.request.k.shape[1]:
            for values, pairs in groups.items():
                self.keys(values, pairs if len(groups) > 1 else None, d_out, terms, into)
            return
        totals = [torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in into]
        parts = torch.empty_like(totals[0]), torch.empty_like(totals[1])
        for (values, pairs), own in zip(groups.items(), found, strict=True):
            self.keys(values, pairs, d_out, terms, parts)
            where = sent(own.astype(np.int32).tobytes(), d_out.device).long()
            for total, part in zip((x.flatten(0, 1) for x in totals), (x.flatten(0, 1) for x in parts), strict=True):
                total.index_copy_(0, where, total.index_select(0, where) + part.index_select(0, where))
        for gradient, total in zip(into, totals, strict=True):
            gradient.copy_(total)

    def keys(
        self,
        values: tuple[bool, ...],
        pairs: NDArray[np.int64] | None,
        d_out: torch.Tensor,
        terms: RowTerms,
        into: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """The share of a group of heads in dk and dv."""
        request = self.request
        tensors = [request.q, request.k, request.v, d_out, *into, terms.lse2, terms.delta]
        source, layout = self.plans.backward_module_of(values), self.plans.transposed_of(values)
        heads = key_heads(request, pairs)
        launched(D_KEYS, layout, source, self.kernels(values), request, tensors, heads, self.tile)


def _like(tensor: torch.Tensor) -> torch.Tensor:
    """An uninitialised tensor with the same layout, where that is dense in the last dimension."""
    made = torch.empty_like(tensor)
    return made if _is_dense(made) else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _dense_rows(tensor: torch.Tensor) -> torch.Tensor:
    """A gradient may come with any strides; the kernels read dense rows."""
    return tensor if _is_dense(tensor) else tensor.contiguous()


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.stride(-1) == 1 or tensor.shape[-1] == 1
