"""Which tensors kernels can read: plain ones, and those by which torch itself traces a call."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from spattn.errors import ArgumentError

PLAIN = torch.Tensor, torch.nn.Parameter
_USUAL: tuple[Any, ...] = (
    vars(torch.Tensor)["__torch_function__"].__func__,
    torch.nn.Parameter.__torch_function__,
)


def require_tensor(name: str, x: Any) -> None:
    """Refuses what is no tensor, or one whose class or layout says that its elements are to be read otherwise.

    Raises:
        ArgumentError: E060; it names the class.
    """
    kind = type(x)
    if not isinstance(x, torch.Tensor):
        raise ArgumentError("E060", f"{name} is a {kind.__name__}, not a tensor")
    if kind not in PLAIN and _has_its_own_way(kind):
        what = f"{name} is a {kind.__module__}.{kind.__name__}, whose operations are its own"
        raise ArgumentError("E060", what, hint="give the plain tensors that it is made of")
    if x.is_nested or x.layout is not torch.strided:
        what = "nested" if x.is_nested else str(x.layout)
        raise ArgumentError("E060", f"{name} is a {kind.__name__} that is {what}, not dense", hint="pad it to be dense")


def _has_its_own_way(kind: Any) -> bool:
    """Does a class answer torch's operations itself? Those of torch's tracing do, and are served."""
    if issubclass(kind, FakeTensor | FunctionalTensor):
        return False
    function = getattr(kind.__torch_function__, "__func__", kind.__torch_function__)
    return kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__ or function not in _USUAL
