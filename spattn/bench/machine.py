"""Where a run takes place: device, dtype, versions."""

from __future__ import annotations

import platform
import time
from importlib import metadata

import torch

from spattn._version import __version__
from spattn.bench.options import Device
from spattn.errors import UnsupportedError
from spattn.runtime.devices import device_names

DTYPES = {"cuda": torch.bfloat16, "cpu": torch.float32}


def device_of(chosen: Device) -> torch.device:
    """The device that a run asks for.

    Raises:
        UnsupportedError: E061, it is not here.
    """
    there = torch.cuda.is_available()
    if chosen is Device.CUDA and not there:
        raise UnsupportedError("E061", "torch sees no GPU here", hint="--device cpu")
    return torch.device("cuda" if there and chosen is not Device.CPU else "cpu")


def dtype_of(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU, float32 on a CPU."""
    return DTYPES[device.type]


def machine(device: torch.device) -> dict[str, str]:
    """Facts for the head of a result."""
    name = device_names()[0] if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {
        "device": name,
        "dtype": str(dtype_of(device)).removeprefix("torch."),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "spattn": __version__,
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%d %H:%M"),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
