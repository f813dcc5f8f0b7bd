"""The GPUs that torch sees."""

from __future__ import annotations

import torch

from spattn.gpu.devices import described
from spattn.machine.device import Device


def device_names() -> list[str]:
    """Name, compute capability and memory of each."""
    if not torch.cuda.is_available():
        return []
    return [_described(torch.cuda.get_device_properties(i)) for i in range(torch.cuda.device_count())]


def first_device() -> Device | None:
    """The first as the choice of tiles sees it."""
    return described(torch.device("cuda", 0)) if torch.cuda.is_available() else None


def _described(device: object) -> str:
    name, major, minor = (getattr(device, field) for field in ("name", "major", "minor"))
    memory = getattr(device, "total_memory", 0) / 2**30
    return f"{name}, compute capability {major}.{minor}, {memory:.0f} GiB"
