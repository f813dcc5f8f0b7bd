"""Attention along layouts as a differentiable function of q, k, v."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from spattn.backends.torch.backward import Gradients, Rows, differentiate, read_rows
from spattn.backends.torch.forward import accumulation_dtype, attend
from spattn.backends.torch.pieces import pieces
from spattn.backends.torch.repair import is_finite
from spattn.backends.torch.runs import Run, runs
from spattn.backends.torch.scoring import Scoring, positions
from spattn.backends.torch.second import second
from spattn.backends.torch.spans import spans_of
from spattn.call.differentiation import gradients
from spattn.call.positions import Positions
from spattn.call.prepared import Prepared
from spattn.call.request import CompiledPattern, Request, Upstream
from spattn.errors import UnsupportedError
from spattn.expressions.evaluation import IntArray
from spattn.expressions.tensors import Tensors
from spattn.layout.ir import Layout
from spattn.scores.nodes import Expression, Score
from spattn.scores.words import steps

T = TypeVar("T")
Groups = Sequence[tuple[Layout, IntArray]]
"""Layouts of direction "queries", and whom each serves: `b * num_q_heads + h`, disjoint."""


def groups_of(plans: CompiledPattern, request: Request) -> Groups:
    """The groups of heads that a call has."""
    groups = plans.groups(request.batch_size, request.num_q_heads)
    return [(plans.layout_of(values), heads) for values, heads in groups.items()]


def attention(groups: Groups, request: Request) -> tuple[Tensor, Tensor]:
    """Attention of each group of heads over the pairs of its layout; differentiable.

    Args:
        groups: Of the pattern.
        request: The call.

    Returns:
        out [batch, num_q_heads, q_len, v_head_dim] in q's dtype, and lse [batch, num_q_heads, q_len] in float32,
        float64 for float64.
    """
    along = _along(groups, request)
    floats = [request.tensors[name] for name in request.floats]
    out, lse = _Attention.apply(request.q, request.k, request.v, along, *floats)
    if request.positions.is_packed:  # heads side by side
        out = out.transpose(1, 2).contiguous().transpose(1, 2)
    return out, lse


class Differentiable:
    """The gradients of calls that differ from a request in nothing but the values of their tensors.

    Args:
        plans: The compiled pattern.
        scale: Factor of the scores.
        positions: Where rows and keys stand.
        score: What becomes of the scores.
    """

    def __init__(self, plans: CompiledPattern, scale: float, positions: Positions, score: Score | None) -> None:
        self._plans, self._scale, self._positions, self._score = plans, scale, positions, score

    def at(self, positions: Positions) -> Differentiable:
        """The same for calls of other lengths, whose rows and keys stand there."""
        return Differentiable(self._plans, self._scale, positions, self._score)

    def backward(
        self,
        saved: tuple[Tensor, ...],
        prepared: Prepared,
        d_out: Tensor | None,
        d_lse: Tensor | None,
        wanted: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        """The gradients of q, k, v and of what the score reads.

        Args:
            saved: q, k, v, out, lse.
            prepared: The tensors of pattern and score, as the forward pass saw them.
            d_out: Gradient of out; None for zero.
            d_lse: Gradient of lse; None for zero.
            wanted: Which are asked for; the others are None.
        """
        along, request = self._along(saved, prepared)
        floats = [prepared[name] for name in request.floats]
        return along.backward((*saved, *floats), d_out, d_lse, wanted)

    def second(
        self,
        saved: tuple[Tensor, ...],
        prepared: Prepared,
        d_out: Tensor | None,
        d_lse: Tensor | None,
        upstream: Upstream,
    ) -> tuple[Tensor, ...]:
        """The derivatives of `backward`, as `request.Differentiable` has them."""
        return self._along(saved, prepared)[0].second(saved, d_out, d_lse, upstream)

    def _along(self, saved: tuple[Tensor, ...], prepared: Prepared) -> tuple[_Along, Request]:
        q, k, v, *_ = saved
        request = Request(q, k, v, self._scale, self._positions, prepared, score=self._score)
        return _along(groups_of(self._plans, request), request), request

    @staticmethod
    def unwritten(q: Tensor, k: Tensor, v: Tensor, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """The gradients of q, k and v, before anything is computed."""
        return tuple(x.new_empty(x.shape) if asked else None for x, asked in zip((q, k, v), wanted, strict=False))


def _made(groups: Groups, request: Request) -> list[Run]:
    spans = spans_of(request)
    tensors, sizes = request.tensors, (request.batch_size, request.num_q_heads)
    names = tuple(name for name in tensors if name not in (*request.positions.by_request, *request.floats))

    def arrays() -> list[Tensors]:
        values = {name: _as_array(tensors[name]) for name in names}
        alone = [one.entry is not None for one in spans]
        return [Tensors(values, one.kv_len, *sizes, one.q_len, longer=x) for one, x in zip(spans, alone, strict=True)]

    given = tensors.derived(("arrays", *spans, *sizes), tuple(tensors), arrays)
    return [
        run
        for layout, heads in groups
        for one, reads in zip(spans, given, strict=True)
        for run in runs(layout, heads, request, one, reads)
    ]


def _as_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A copy: the backward pass must see what the forward pass saw."""
    return np.asarray(tensor.detach().cpu().clone())


@dataclass(frozen=True)
class _ScoreAt:
    """A score where the rows and keys of a call stand; attributes are those of `Scoring`."""

    names: tuple[str, ...]
    steps: tuple[Expression, ...]
    of_rows: tuple[Tensor, Tensor, Tensor]
    of_keys: Tensor

    def reading(self, floats: Sequence[Tensor], dtype: torch.dtype) -> Scoring:
        """The same with the tensors that it reads, in the dtype of results."""
        tensors = {name: one.detach().to(dtype).contiguous() for name, one in zip(self.names, floats, strict=True)}
        return Scoring(self.steps, tensors, self.of_rows, self.of_keys)


@dataclass(frozen=True)
class _Along:
    """The gradients of a call along its runs; methods are those of `differentiation.Derivatives`.

    What is saved ends with the tensors that the score reads.
    """

    made: list[Run]
    scale: float
    score: _ScoreAt | None

    def scoring(self, floats: Sequence[Tensor], q: Tensor) -> Scoring | None:
        """What the score makes of products; None without one."""
        return None if self.score is None else self.score.reading(floats, accumulation_dtype(q.dtype))

    def backward(
        self, saved: tuple[Tensor, ...], d_out: Tensor | None, d_lse: Tensor | None, wanted: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """The gradients of q, k, v and of what the score reads."""
        floats = saved[5:]
        found = _derived(saved[:5], d_out, d_lse, self.made, self.scale, self.scoring(floats, saved[0]), wanted)
        given = (*saved[:3], *floats)
        return tuple(None if one is None else one.to(x.dtype) for one, x in zip(found, given, strict=True))

    def second(
        self, saved: tuple[Tensor, ...], d_out: Tensor | None, d_lse: Tensor | None, upstream: Upstream
    ) -> tuple[Tensor, ...]:
        """The derivatives of `backward`."""
        if self.score is not None:
            hint = "leave out create_graph=True, or the score"
            raise UnsupportedError("E061", "attention with a score has no second derivatives", hint=hint)
        return second(self.made, self.scale, saved, d_out, d_lse, upstream)


def _along(groups: Groups, request: Request) -> _Along:
    score = request.score
    at = None if score is None else _ScoreAt(request.floats, steps(score), *positions(request))
    return _Along(_made(groups, request), request.scale, at)


class _Attention(torch.autograd.Function):
    """(out, lse) of q, k, v and what a score reads, along runs."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, along: _Along, *floats: Tensor) -> tuple[Tensor, Tensor]:
        scoring = along.scoring(floats, q)
        out, lse = _results(q, k, v, along.made, along.scale, scoring, repair=False)
        if not is_finite(out):
            out, lse = _results(q, k, v, along.made, along.scale, scoring, repair=True)
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse, *floats)
        ctx.along = along
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        if d_out is None and d_lse is None:
            return None, None, None, None, *[None] * len(ctx.saved_tensors[5:])
        wanted = (*ctx.needs_input_grad[:3], *ctx.needs_input_grad[4:])
        found = gradients(ctx.along, ctx.saved_tensors, d_out, d_lse, wanted)
        return *found[:3], None, *found[3:]


def _results(
    q: Tensor, k: Tensor, v: Tensor, made: list[Run], scale: float, scoring: Scoring | None = None, *, repair: bool
) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(q.dtype)
    out = q.new_zeros((*q.shape[:3], v.shape[-1]), dtype=dtype)
    lse = q.new_full(q.shape[:3], -torch.inf, dtype=dtype)
    with torch.autocast(q.device.type, enabled=False):
        rows, cols = () if scoring is None else scoring.of_rows, () if scoring is None else (scoring.of_keys,)
        for (queries, o, ell, *at), (keys, values, *k_at), batch in pieces(made, (q, out, lse, *rows), (k, v, *cols)):
            pairs = None if scoring is None else scoring.pairs(at, k_at[0], batch)
            attend(queries, keys, values, batch, scale, o, ell, pairs, repair=repair)
    return out, lse


def _derived(
    saved: tuple[Tensor, ...],
    d_out: Tensor | None,
    d_lse: Tensor | None,
    made: list[Run],
    scale: float,
    scoring: Scoring | None,
    wanted: tuple[bool, ...],
) -> list[Tensor | None]:
    """The gradients of q, k, v and a score's tensors, unrounded, repaired where it is needed; None if not `wanted`."""
    q, k, v, out, lse = saved
    rows = q, *read_rows(out, lse, d_out, d_lse)
    found = _gradients(rows, k, v, made, scale, scoring, wanted, repair=False) if is_finite(out) else None
    if found is None or not is_finite(*(one for one in found if one is not None)):
        found = _gradients(rows, k, v, made, scale, scoring, wanted, repair=True)
    return found


def _gradients(
    of_rows: tuple[Tensor, ...],
    k: Tensor,
    v: Tensor,
    made: list[Run],
    scale: float,
    scoring: Scoring | None,
    wanted: tuple[bool, ...],
    *,
    repair: bool,
) -> list[Tensor | None]:
    given, floats = (of_rows[0], k, v), {} if scoring is None else scoring.tensors
    zeros = [torch.zeros(x.shape, dtype=of_rows[-1].dtype, device=x.device) for x in _asked(given, wanted)]
    tensors = {name: torch.zeros_like(floats[name]) for name in _asked(tuple(floats), wanted[3:])}
    of_q, of_keys = zeros[: wanted[0]], zeros[wanted[0] :]
    with torch.autocast(k.device.type, enabled=False):
        places, cols = () if scoring is None else scoring.of_rows, () if scoring is None else (scoring.of_keys,)
        taken = pieces(made, (*of_rows, *places, *of_q), (k, v, *cols, *of_keys))
        for (q, d_out, lse, shift, *at), (keys, values, *k_at), batch in taken:
            pairs = None if scoring is None else scoring.pairs(at[:3], k_at[0], batch)
            d_q, d_k, d_v = _placed([*at[len(places) :], *k_at[len(cols) :]], wanted[:3])
            rows, into = Rows(q, d_out, lse, shift), Gradients(d_q, d_k, d_v, tensors)
            differentiate(rows, keys, values, batch, scale, into, pairs, repair=repair)
    return [*_placed(zeros, wanted[:3]), *(tensors.get(name) for name in floats)]


def _asked(every: Sequence[T], wanted: Sequence[bool]) -> list[T]:
    """Those that are wanted."""
    return [one for one, asked in zip(every, wanted, strict=False) if asked]


def _placed(some: Sequence[T], wanted: Sequence[bool]) -> list[T | None]:
    """Those that are wanted where they stand among all; None for the others."""
    left = iter(some)
    return [next(left) if asked else None for asked in wanted]
