"""Is a step right? One request beside explicit softmax in float64, over the keys that the pattern says it needs."""

from __future__ import annotations

import math

import torch

from spattn.bench.decode.case import DecodeCase
from spattn.bench.judge import TOLERANCE, worst


class DecodeJudge:
    """Knows the right answers of a case."""

    def __init__(self, case: DecodeCase) -> None:
        self._case = case
        self.tolerance = TOLERANCE[case.dtype]

    def error(self, out: torch.Tensor, layer: int, request: int) -> float:
        """The greatest relative error of a row of a request; infinite where something is not a number.

        Args:
            out: `[batch, q_heads, new, head_dim]`.
            layer: Whose cache was read.
            request: Which is looked at.
        """
        heads, group = self._case.workload.kv_heads, self._case.workload.q_heads // self._case.workload.kv_heads
        found = out[request].double()
        return max(
            worst(found[h * group : (h + 1) * group], self._expected(layer, request, h, group)) for h in range(heads)
        )

    def _expected(self, layer: int, request: int, head: int, group: int) -> torch.Tensor:
        """`[group, new, head_dim]`, of the query heads that share a key head."""
        cache, needed = self._case.caches[layer], self._case.needed[request]
        blocks, slots = cache.places(request, needed.positions)
        k, v = (
            stored[blocks, slots, head].double() * (1.0 if scale is None else scale.double())
            for stored, scale in ((cache.keys, cache.k_scale), (cache.values, cache.v_scale))
        )
        q = self._case.q[request, head * group : (head + 1) * group].double()
        scores = (q @ k.T / math.sqrt(q.shape[-1])).masked_fill(~needed.mask, -math.inf)
        return scores.softmax(-1) @ v
