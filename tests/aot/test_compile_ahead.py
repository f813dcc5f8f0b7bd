"""Generated kernels compiled for GPUs that are not here, by both ends of the range of Triton that we support."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from spattn.cache.store import default_cache
from spattn.codegen.tile import Tile
from spattn.compiler import compile_pattern
from spattn.errors import UnsupportedError
from spattn.gpu.aot import compile_ahead, usual_tiles
from spattn.gpu.load import load
from spattn.machine.target import Target

SMALL = Tile(64, 64, 4, 2)


def _compiled(pattern: str, target: str, tiles: Tile | list[Tile] = SMALL, dtype: str = "bf16", head_dim: int = 64):
    source = compile_pattern(pattern).source()
    kernels = load(default_cache().publish(source.text), source.text)
    return compile_ahead(source, kernels, Target.of(target), dtype, head_dim, head_dim, tiles)


@pytest.mark.aot
@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
def test_a_window_compiles_without_spills(target):
    [found] = _compiled("last(256)", target)
    assert found.spills == 0
    assert found.warnings == ()
    assert found.registers
    assert found.shared <= 227 * 1024


@pytest.mark.aot
def test_hopper_uses_its_matrix_units():
    [found] = _compiled("causal", "cuda:90")
    assert "wgmma.mma_async" in found.text("ptx")
    assert "tt.dot" in found.text("ttir")


@pytest.mark.aot
def test_each_pass_has_its_tile():
    pattern = "local(64) | global([0, 7]) | random(2, block=32)"
    tiles = usual_tiles(compile_pattern(pattern).layout(), "fp16", 64, Target.of("cuda:80"))
    found = _compiled(pattern, "cuda:80", tiles, "fp16")
    names = [[f"attend_{i}", *([f"attend_{i}_combine"] if tile.splits > 1 else [])] for i, tile in enumerate(tiles)]
    assert [one.name for one in found] == [name for own in names for name in own]
    assert [one.tile for one in found] == [tile for tile, own in zip(tiles, names, strict=True) for _ in own]


@pytest.mark.parametrize("name", ["cuda:70", "cuda:abc", "hip:gfx9", "rocm", "", "cuda:90:32"])
def test_targets_that_there_are_not(name):
    with pytest.raises(UnsupportedError, match="cuda:90"):
        Target.of(name)


def test_the_interpreter_compiles_nothing(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(UnsupportedError, match="TRITON_INTERPRET"):
        compile_ahead(compile_pattern("causal").source(), {}, Target.of("cuda:90"), "fp16", 64, 64, SMALL)
