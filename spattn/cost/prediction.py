"""How long a pass will take: what its programs share, what one waits for alone, and what must be moved."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from spattn.codegen.tile import Tile
from spattn.cost.rates import LOADED
from spattn.cost.rates.table import Rates
from spattn.cost.work import Work
from spattn.machine.device import Device

LAUNCH = 1.0  # microseconds between one kernel and the next
REPAIR = 2.2  # microseconds of a launch that finds no row to mend
RESUMED = 0.4  # microseconds of a processor to load what an earlier pass left
COMBINED = 3.0, 0.5  # microseconds of a program that combines splits, and for each of them
INDIRECT = 1.15  # a key tile found in a list, where no other program works while its place is loaded
TWO_STAGES = 1.6  # a program alone, where but one key tile is loaded ahead
FILLED = 0.85  # of the memory's bandwidth that is reached
RESERVED = 1024  # bytes of shared memory that the system takes for each program


@dataclass(frozen=True)
class Prediction:
    """Microseconds of a pass with a tile, and what they are made of.

    Attributes:
        tile: How the pass is cut.
        work: What it does.
        resident: Programs that share a processor.
        compute: Key tiles, on all processors at once.
        overhead: Of programs, their key tiles apart.
        waves: The least time in which programs of mean length run one after the other.
        longest: The longest program.
        tail: What the program that starts last runs on after the others.
        cache, memory: Loading keys and values from the L2 cache; moving bytes to and from memory.
        launches: Kernels' beginnings, mending and combining.
    """

    tile: Tile
    work: Work
    resident: int
    compute: float
    overhead: float
    waves: float
    longest: float
    tail: float
    cache: float
    memory: float
    launches: float

    @property
    def total(self) -> float:
        """Microseconds."""
        busy = max(self.compute + self.overhead, self.waves, self.cache, self.memory) + self.tail
        return max(busy, self.longest) + self.launches

    @property
    def bound(self) -> str:
        """The part that decides: "compute", "cache", "memory", "longest" or "waves"."""
        busy = self.compute + self.overhead
        parts = {"compute": busy, "cache": self.cache, "memory": self.memory}
        parts |= {"waves": self.waves, "longest": max(self.longest, busy if self.tail > busy else 0.0)}
        return max(parts, key=lambda name: parts[name])


def predict(work: Work, tile: Tile, rates: Rates, device: Device, row_bytes: int) -> Prediction:
    """The time of a pass.

    Args:
        work: Its work with the tile.
        tile: How it is cut.
        rates: The tile's.
        device: Where it runs.
        row_bytes: Bytes of a row of q, of a power of two.
    """
    resident = _resident(tile, rates, device, row_bytes)
    slow = (INDIRECT if work.indirect and resident == 1 else 1.0) / device.speed
    program, step = rates.program / device.speed, (rates.full * work.full + rates.partial * work.partial) * slow
    each = step / work.steps if work.steps else 0.0
    waiting: float = min(sqrt(resident) * (TWO_STAGES if tile.num_stages < 3 else 1.0), resident)
    processors = device.processors

    def alone(steps: float) -> float:
        return waiting * (program + each * steps)

    slots = resident * processors
    crowded = work.programs > slots
    return Prediction(
        tile=tile,
        work=work,
        resident=resident,
        compute=work.programs * step / processors,
        overhead=(work.programs * program + work.resumed * RESUMED / device.speed) / processors,
        waves=-(-work.programs // slots) * alone(work.steps),
        longest=alone(work.longest),
        tail=max(alone(work.latest) - alone(work.steps), 0.0) if crowded else 0.0,
        cache=work.loaded / (LOADED * device.speed * processors) * 1e6,
        memory=work.moved / (FILLED * device.bandwidth) * 1e6,
        launches=_launches(work, tile, device),
    )


def _resident(tile: Tile, rates: Rates, device: Device, row_bytes: int) -> int:
    """Programs that registers and shared memory leave room for."""
    threads = 32 * tile.num_warps
    by_registers = device.registers // (threads * (tile.registers or rates.registers))
    shared = shared_bytes(tile, row_bytes) + RESERVED
    return max(1, min(by_registers, (device.shared + RESERVED) // shared, device.threads // threads))


def shared_bytes(tile: Tile, row_bytes: int) -> int:
    """Shared memory of a program: queries, and keys and values in flight."""
    return (tile.block_m + 2 * tile.block_n * tile.num_stages) * row_bytes


def _launches(work: Work, tile: Tile, device: Device) -> float:
    time = work.launches * LAUNCH + REPAIR * work.repairs
    if not work.combined:
        return time
    first, each = COMBINED
    waves = -(-work.combined // (4 * device.processors))
    moved = work.split_bytes / (FILLED * device.bandwidth) * 1e6
    return time + max(waves * (first + each * tile.splits) / device.speed, moved)
