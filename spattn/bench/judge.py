"""Is an answer right? Sampled rows against explicit softmax in float64, of the first head and of the last.

Of the output and dq, rows of queries are looked at; of dk and dv, rows of keys, for which every query counts.
"""

from __future__ import annotations

import math
from functools import cache, cached_property

import torch

from spattn.bench.case import Case, Inputs
from spattn.bench.options import Direction

EDGE = 16
RANDOM = 48
CHEAP = 1 << 36
"""Pairs of a head, allowed or not, up to which gradients are computed in float64."""

TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 4e-3, torch.float32: 2e-4}
"""Relative, of the worst row of an output and of the sampled part of a gradient."""

NOTHING = 1e-9
"""A norm that is 0 but for rounding, as that of dq where each row sees one key."""

Answer = tuple[torch.Tensor, ...]
"""(out,) or (dq, dk, dv)."""


class Judge:
    """Knows the right answers of a case; computes them once."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.tolerance = TOLERANCE[case.dtype]
        one = case.workload
        self._group = one.q_heads // one.kv_heads
        self._places = sorted({(0, 0), (one.batch - 1, one.q_heads - 1)})
        self._gradients = cache(self._gradients_of)

    def error(self, answer: Answer, direction: Direction) -> float:
        """Relative error: infinite where something is not a number, NaN where it was too dear to know."""
        if direction is Direction.FORWARD:
            return max(self._row_error(answer[0], *place) for place in self._places)
        if self._case.workload.length**2 > CHEAP:
            return math.nan
        return max(self._gradient_error(answer, *place) for place in self._places)

    @cached_property
    def rows(self) -> torch.Tensor:
        """The sampled rows, or keys: the first, the last, some between."""
        length = self._case.workload.length
        between = torch.randint(0, length, (RANDOM,), generator=torch.Generator().manual_seed(0))
        edges = [torch.arange(min(EDGE, length)), torch.arange(max(0, length - EDGE), length)]
        places: torch.Tensor = torch.unique(torch.cat([*edges, between]))
        return places.to(self._case.device)

    def _row_error(self, out: torch.Tensor, batch: int, head: int) -> float:
        q, k, v = self._double(batch, head)
        weights = self._softmax(q[self.rows], k, self._case.allowed(batch, head, self.rows))
        return worst(out[batch, head, self.rows].double(), weights @ v)

    def _gradient_error(self, answer: Answer, batch: int, head: int) -> float:
        heads = (head, head // self._group, head // self._group)
        found = (one[batch, h, self.rows].double() for one, h in zip(answer, heads, strict=True))
        return max(map(relative, found, self._gradients(batch, head)))

    def _gradients_of(self, batch: int, head: int) -> Answer:
        """The sampled rows of dq, dk and dv; the latter two are sums over the heads that share the keys."""
        first = head // self._group * self._group
        parts = {h: self._head_gradients(batch, h) for h in range(first, first + self._group)}
        dk, dv = (torch.stack([part[i] for part in parts.values()]).sum(0) for i in (1, 2))
        return parts[head][0], dk, dv

    def _head_gradients(self, batch: int, head: int) -> Answer:
        q, k, v = self._double(batch, head)
        dout = self._case.dout[batch, head].double()
        scale = 1 / math.sqrt(q.shape[-1])
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k[self.rows]), torch.zeros_like(v[self.rows])
        for rows in self._case.chunks():
            weights = self._softmax(q[rows], k, self._case.allowed(batch, head, rows))
            delta = (dout[rows] * (weights @ v)).sum(-1, keepdim=True)
            scores = weights * (dout[rows] @ v.T - delta) * scale
            dq[rows] = scores @ k
            dk += scores[:, self.rows].T @ q[rows]
            dv += weights[:, self.rows].T @ dout[rows]
        return dq[self.rows], dk, dv

    def _double(self, batch: int, head: int) -> Inputs:
        q, k, v = self._case.inputs
        kv_head = head // self._group
        return q[batch, head].double(), k[batch, kv_head].double(), v[batch, kv_head].double()

    def _softmax(self, q: torch.Tensor, k: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        """Weights of each key; zeros in a row without keys."""
        scores = (q @ k.T / math.sqrt(q.shape[-1])).masked_fill_(~allowed, -math.inf)
        return scores.softmax(-1).nan_to_num_(nan=0.0)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference over the norm; where all should be 0 up to rounding, the norm of what was found."""
    size = expected.norm()
    return _number((found - expected).norm() / torch.where(size > NOTHING, size, 1.0))


def difference(found: Answer, expected: Answer) -> float:
    """The largest relative difference of two answers, head by head so that no copy of all is made."""
    return max(map(_difference, found, expected))


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    size = max(_squares(expected), NOTHING**2)
    return math.sqrt(_squares(found, expected) / size) if size < math.inf else math.inf


def _squares(one: torch.Tensor, less: torch.Tensor | None = None) -> float:
    others = one.flatten(0, 1) if less is None else less.flatten(0, 1)
    heads = zip(one.flatten(0, 1), others, strict=True)
    return sum(_number((a.double() if less is None else a.double() - b.double()).square().sum()) for a, b in heads)


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest relative error of a row; where a row should be 0, its norm."""
    norms = expected.norm(dim=-1)
    return _number(((found - expected).norm(dim=-1) / torch.where(norms > 0, norms, 1.0)).max())


def _number(value: torch.Tensor) -> float:
    return float(value.nan_to_num(nan=math.inf, posinf=math.inf))
