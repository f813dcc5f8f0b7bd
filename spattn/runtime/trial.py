"""One random call of a backend, beside the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from spattn import oracle
from spattn.backends import registry
from spattn.call.positions import Positions
from spattn.call.request import CompiledPattern
from spattn.runtime.arguments import checked

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Of out, which is of order 1; lse is float32 and compared relative to its size."""
LSE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Trial:
    """How a backend did.

    Attributes:
        refusal: Why it did not serve; the rest means nothing then.
        error: Largest difference of out to the oracle's.
        lse_error: The same of lse, relative to max(1, |lse|).
        allowed_error: What is granted to out in this dtype.
    """

    backend: str
    dtype: str
    device: str
    refusal: str | None = None
    error: float = 0.0
    lse_error: float = 0.0
    allowed_error: float = 0.0

    @property
    def passed(self) -> bool:
        """Is out as near as its dtype allows? NaN is not."""
        return self.error <= self.allowed_error and self.lse_error <= LSE_TOLERANCE


def trial(
    plans: CompiledPattern,
    roles: Mapping[str, str],
    mask: Any,
    tensors: Mapping[str, Any],
    backend: str,
    *,
    shape: tuple[int, int],
    at: Positions,
    head_dim: int,
    seed: int = 0,
) -> Trial:
    """Runs a backend on random tensors, where it runs best here: on a GPU if there is one.

    Args:
        plans: The compiled pattern.
        roles: Its free names.
        mask: The oracle's pairs.
        tensors: Arrays for the free names.
        backend: "triton" or "torch".
        shape: (batch_size, num_heads).
        at: Where rows and keys stand, in numbers.
        head_dim: Width of a head.
        seed: Of the random tensors.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if backend == "triton" else torch.float32
    q, k, v = _random((*shape, at.q_len, at.num_keys), head_dim, dtype, device, seed)
    given = {name: torch.as_tensor(value, device=device) for name, value in tensors.items()}
    request = checked(q, k, v, scale=None, tf32=False, roles=roles, tensors=given, said=at.said)
    name = str(dtype).removeprefix("torch.")
    [chosen] = registry.backends(backend).values()
    refusal = chosen.refusal(plans, request)
    if refusal is not None:
        return Trial(backend, name, device, refusal)
    served = chosen.serve(plans, request)
    wanted, wanted_lse = oracle.attention(q, k, v, mask)
    scale = wanted_lse.abs().clamp(min=1.0).nan_to_num(posinf=1.0)
    lse_error = _largest(served.lse, wanted_lse, scale)
    return Trial(backend, name, device, None, _largest(served.out, wanted), lse_error, TOLERANCE[dtype])


def _random(
    shape: tuple[int, int, int, int], head_dim: int, dtype: torch.dtype, device: str, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, heads, q_len, num_keys = shape
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(batch, heads, n, head_dim, generator=generator) for n in (q_len, num_keys, num_keys))
    return q.to(device, dtype), k.to(device, dtype), v.to(device, dtype)


def _largest(found: torch.Tensor, wanted: torch.Tensor, scale: torch.Tensor | float = 1.0) -> float:
    """The largest difference, equal infinities counting as none."""
    difference = torch.where(found.double() == wanted, 0.0, (found.double() - wanted).abs() / scale)
    return float(difference.max()) if difference.numel() else 0.0
