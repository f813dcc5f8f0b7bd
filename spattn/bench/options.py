"""What a run is asked for, and the words that explain it: Typer's command line and argparse's both fill `Options`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

TIMES = 20
FEWEST = 3


class Direction(StrEnum):
    """Which pass is timed."""

    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "both"


class Device(StrEnum):
    """Where; `auto` is the GPU if there is one."""

    AUTO = "auto"
    CUDA = "cuda"
    CPU = "cpu"


@dataclass(frozen=True)
class Options:
    """One run. Texts are as the command line has them, `HELP` explains each field."""

    names: tuple[str, ...] = ()
    variants: bool = False
    length: str = ""
    direction: Direction = Direction.FORWARD
    tuned: str = ""
    peer: str = ""
    backend: str = ""
    building: bool = False
    startup: bool = False
    batch: str = ""
    stored: str = ""
    numbers: str = ""
    new: str = ""
    ragged: bool = False
    times: int = TIMES
    budget: float | None = None
    device: Device = Device.AUTO
    json: Path | None = None
    plot: Path | None = None
    draw: Path | None = None
    output: Path | None = None
    listing: bool = False


HELP = {
    "names": "Workloads, NAME or NAME@LENGTH, or groups: peers, unions, variants, decode.",
    "variants": "The group of the same name: some patterns at 4k, 16k, 64k and 256k.",
    "length": "Run each workload at these lengths: 16k, or 4k,8k, or 4k..256k, which goes up by factors of four.",
    "direction": "forward, backward or both.",
    "tuned": "Workloads for which FlexAttention also runs max-autotune, with commas between, or all.",
    "peer": "These peers only, with commas between: spattn, flex, flex-tuned, cudnn, fa4, masked, row-blocks; "
    "of decode also flashinfer, packed.",
    "backend": "spattn's backends, with commas between; triton on a GPU, torch on a CPU if not given.",
    "building": "Also (without NAME: only) what building a plan or a mask takes, against length.",
    "startup": "Also (without NAME: only) the first call of a new process, with cold and with warm caches.",
    "batch": "Requests of a decode step: 1,8,64.",
    "stored": "Caches of decode: dense, page16, page64, ring, with commas between, or all.",
    "numbers": "What these hold: plain (the dtype of q), fp8, or all.",
    "new": "Rows of each request in a decode step: 1,4.",
    "ragged": "Requests of decode have lengths from an eighth of --length on.",
    "times": "Calls (of decode, graphs of steps) of which the median is taken; fewer where one takes seconds.",
    "budget": "Begin nothing new after so many seconds; what was left out is named.",
    "device": "auto, cuda or cpu.",
    "json": "Write all results here, anew after each; - for standard output instead of the table.",
    "plot": "Write a picture of the results here, a PNG.",
    "draw": "Measure nothing: draw the results in this JSON file; the picture goes to -o.",
    "output": "Where the picture of --draw goes.",
    "listing": "Name the workloads and their patterns.",
}
