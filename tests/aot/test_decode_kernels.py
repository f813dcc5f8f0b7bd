"""Decode kernels compile for GPUs that are not here, and three of their programs share a processor of Hopper."""

from __future__ import annotations

import pytest

from spattn.cache.store import default_cache
from spattn.compiler import compile_pattern
from spattn.cost.decode_tiles import usual_tile
from spattn.gpu.aot import Artefact, Target, compile_decode_ahead
from spattn.gpu.load import load
from tests.aot.shared_out import shared_out

pytestmark = pytest.mark.aot

PATTERNS = {
    "window": "causal & (last(4096) | sink(64))",
    "strided": "causal & (last(128) | strided(128))",
    "documents": "documents(ids) & causal",
}
PROCESSOR = 228 * 1024  # bytes of shared memory
SPILLED = 256  # bytes that a thread may store and load for want of registers; 3.6: 0


def artefact(pattern: str, target: str, page_size: int, positions: int = 1) -> Artefact:
    compiled = compile_pattern(pattern)
    source = compiled.decode_source()
    kernel = load(default_cache().publish(source.text), source.text)["decode"]
    tile = usual_tile(128, 2, 4 * positions)
    return compile_decode_ahead(
        source, kernel, Target.of(target), "bf16", 128, 128, tile, page_size=page_size, positions=positions
    )


@pytest.mark.parametrize(("name", "page_size"), shared_out(PATTERNS, [0, 16, 64]))
def test_three_programs_share_a_processor(name: str, page_size: int) -> None:
    found = artefact(PATTERNS[name], "cuda:90", page_size)
    assert found.registers is not None
    assert found.registers <= 168
    assert 3 * found.shared <= PROCESSOR
    assert found.spills is not None
    assert found.spills <= SPILLED


@pytest.mark.parametrize("target", shared_out(["cuda:80", "hip:gfx942"]))
def test_other_gpus_get_a_binary(target: str) -> None:
    assert artefact(PATTERNS["window"], target, 64).asm["hsaco" if "hip" in target else "cubin"]


def test_several_positions_fit_into_the_shared_memory() -> None:
    assert artefact(PATTERNS["window"], "cuda:90", 16, positions=16).shared <= Target.of("cuda:90").shared
