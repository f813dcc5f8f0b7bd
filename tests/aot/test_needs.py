"""What is said of registers and spills, beside what the binary itself shows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from spattn.cache.store import default_cache
from spattn.codegen.tile import Tile
from spattn.compiler import compile_pattern
from spattn.gpu.aot import Artefact, compile_ahead
from spattn.gpu.load import load
from spattn.machine.target import Target

# a thread's own memory, stored and loaded: 4 bytes, or as many as a suffix says
LOCAL = re.compile(r"\b(?:STL|LDL)((?:\.\w+)*)\s")
BYTES = {"64": 8, "128": 16}


def _compiled(tile: Tile, head_dim: int) -> Artefact:
    source = compile_pattern("causal").source()
    kernels = load(default_cache().publish(source.text), source.text)
    [found] = compile_ahead(source, kernels, Target.of("cuda:90"), "bf16", head_dim, head_dim, tile)
    return found


def _resources(cubin: bytes, at: Path) -> dict[str, int]:
    """REG, STACK and the like, as cuobjdump reads them in a binary."""
    from triton import knobs

    at.write_bytes(cubin)
    command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(at)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"\b([A-Z]+):(\d+)", said)}


def _local_bytes(sass: str) -> int:
    """What the instructions of a listing store to local memory and load from it, each counted once."""
    return sum(next((BYTES[s] for s in one.split(".") if s in BYTES), 4) for one in LOCAL.findall(sass))


@pytest.mark.aot
@pytest.mark.parametrize(
    ("tile", "head_dim", "spilling"), [(Tile(64, 64, 4, 2), 64, False), (Tile(128, 128, 4, 2), 128, True)]
)
def test_registers_and_spills_are_those_of_the_binary(
    tile: Tile, head_dim: int, spilling: bool, tmp_path: Path
) -> None:
    found = _compiled(tile, head_dim)
    resources = _resources(found.asm["cubin"], tmp_path / "kernel.cubin")
    assert found.registers == resources["REG"]
    assert found.spills == _local_bytes(found.text("sass"))
    assert (found.spills > 0) == (resources["STACK"] > 0) == spilling
