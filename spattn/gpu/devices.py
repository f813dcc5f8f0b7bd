"""A device as the choice of tiles sees it."""

from __future__ import annotations

from functools import lru_cache

import torch

from spattn.machine.device import H200, Device

SPEEDS = {"8.0": 0.42, "8.6": 0.15, "8.9": 0.28, "9.0": 1.0, "10.0": 1.8, "10.3": 1.8, "12.0": 0.3, "gfx942": 0.6}
"""Dense bf16 products of one processor beside an H200's, from vendors' tables."""
UNKNOWN_SPEED = 0.5


@lru_cache(maxsize=64)
def described(device: torch.device) -> Device:
    """A device; what is no GPU is an H200 to the interpreter."""
    if device.type != "cuda":
        return H200
    found = torch.cuda.get_device_properties(device)
    shared = getattr(found, "shared_memory_per_block_optin", 0) or found.shared_memory_per_block
    architecture = getattr(found, "gcnArchName", "").partition(":")[0] or f"{found.major}.{found.minor}"
    # both edges of a clock in kHz carry a bit on each wire
    wires, clock = getattr(found, "memory_bus_width", 0), getattr(found, "memory_clock_rate", 0)
    return Device(
        name=found.name,
        shared=int(shared),
        processors=found.multi_processor_count,
        bandwidth=2 * clock * 1e3 * wires / 8 or H200.bandwidth,
        speed=SPEEDS.get(architecture, UNKNOWN_SPEED),
        registers=int(getattr(found, "regs_per_multiprocessor", H200.registers)),
        threads=int(getattr(found, "max_threads_per_multi_processor", H200.threads)),
    )
