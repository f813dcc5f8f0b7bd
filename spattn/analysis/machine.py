"""The device that costs are predicted for: the GPU that is here, else an H200."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path

from spattn.machine.device import H200, Device

DRIVERS = ("/dev/nvidia0", "/dev/kfd")


def device_here() -> Device:
    """The first GPU that torch sees; torch is not imported where there is no driver."""
    if "torch" not in sys.modules and not any(Path(path).exists() for path in DRIVERS):
        return H200
    if util.find_spec("torch") is None:
        return H200
    from spattn.runtime.devices import first_device

    return first_device() or H200
