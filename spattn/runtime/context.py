"""What torch has switched on around a call: autocast, and whoever wants to see an operator instead of kernels."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

_PLAIN = torch.Tensor.__torch_dispatch__


def is_plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Is nothing on, so that the call may go to the kernels as it is?"""
    return (
        type(q) is type(k) is type(v) is torch.Tensor
        and not torch._C._is_any_autocast_enabled()
        and not torch._C._len_torch_dispatch_stack()
        and not is_transformed()
        and not q.is_meta
    )


def as_autocast_wants(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """q, k and v in autocast's dtype where it is on for their device, as torch's own attention casts them."""
    kind = tensors[0].device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in tensors)


def is_watched(*tensors: object) -> bool:
    """Is an operator wanted: by a mode beneath autograd, by fake or meta tensors, by tensors of another class?"""
    return torch._C._len_torch_dispatch_stack() > 0 or any(map(is_strange, tensors))


def is_transformed() -> bool:
    """Does torch.func or forward-mode differentiation look at this call?"""
    level: int = forward_ad._current_level
    return level >= 0 or torch._C._are_functorch_transforms_active()


def is_strange(x: object) -> bool:
    """Has a tensor a class of its own, or no memory?"""
    return isinstance(x, torch.Tensor) and (x.is_meta or type(x).__torch_dispatch__ is not _PLAIN)
