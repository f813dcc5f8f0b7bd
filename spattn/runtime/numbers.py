"""`scale` and the positions of a call: what they may be, whatever a key of a cache holds equal to them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from spattn.call.positions import integer
from spattn.errors import ArgumentError
from spattn.runtime.tensors import require_tensor


def as_position(name: str, value: Any) -> int:
    """A position or a length that is no plain int, such as NumPy's.

    Raises:
        ArgumentError: E060, it is no integer.
    """
    if isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]
    return integer(name, value)


def scaled(q: torch.Tensor, scale: Any) -> tuple[torch.Tensor, float]:
    """q, and a `scale` that is no plain float as one.

    A tensor multiplies q: so it has its gradient, and its value at each call without the host waiting for it.

    Raises:
        ArgumentError: E060, it is no real number and no tensor of one.
    """
    if isinstance(scale, torch.Tensor):
        require_tensor("q", q)
        _require_one_number(scale, q.device)
        return (q * scale.reshape(()) if q.is_floating_point() else q), 1.0
    if isinstance(scale, torch.SymFloat):
        return q, scale  # type: ignore[return-value]
    if isinstance(scale, int | float | np.integer | np.floating) and not isinstance(scale, bool):
        return q, _as_float(scale)
    what = f"scale is a {type(scale).__name__}, not a number"
    raise ArgumentError("E060", what, hint="a real number, or a tensor of one")


def _as_float(scale: Any) -> float:
    try:
        return float(scale)
    except OverflowError:
        return math.inf  # which is refused where all numbers are


def _require_one_number(scale: torch.Tensor, device: torch.device) -> None:
    require_tensor("scale", scale)
    if scale.numel() != 1 or not scale.is_floating_point():
        found = f"{list(scale.shape)} of {scale.dtype}"
        raise ArgumentError("E060", f"scale is a tensor {found}, not one floating-point number")
    if scale.device != device and scale.device.type != "cpu":
        raise ArgumentError("E060", f"scale is on {scale.device} and q on {device}")
