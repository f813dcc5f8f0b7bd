"""A GPU as the choice of plans and tiles sees it."""

from __future__ import annotations

from spattn.expressions.frozen import frozen


@frozen
class Device:
    """What a choice depends on. By default an H200, also for the interpreter, which has no limits.

    Attributes:
        name: As its vendor calls it.
        shared: Bytes of shared memory that a program may have.
        processors: Streaming multiprocessors, or compute units.
        bandwidth: Of the memory, bytes a second.
        speed: Of a processor, beside an H200's.
        registers, threads: That a processor has.
    """

    name: str = "NVIDIA H200"
    shared: int = 227 * 1024
    processors: int = 132
    bandwidth: float = 4.8e12
    speed: float = 1.0
    registers: int = 65536
    threads: int = 2048


H200 = Device()
