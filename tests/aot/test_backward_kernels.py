"""The kernels of gradients compile for the GPUs that we serve, and on Hopper to products of warp groups."""

from __future__ import annotations

from functools import partial

import pytest

from spattn.codegen.tile import Tile
from spattn.machine.target import Target
from tests.aot.sass import unset_registers
from tests.aot.shared_out import shared_out
from tests.aot.test_kernels import BINARIES, DTYPES, HEAD_DIMS, NARROW, NUMBERS, PATTERNS, SHARED, in_turn
from tests.aot.test_kernels import artefacts as forward_or_backward

pytestmark = pytest.mark.aot

SPILLED = 1024  # bytes, stores and loads, outside of the innermost loops; dk and dv alone fill half of the registers
ELSEWHERE = ("window", "owners", "blocks")

artefacts = partial(forward_or_backward, backward=True)


@pytest.mark.parametrize("name", shared_out(PATTERNS))
def test_hopper_gets_matrix_products_of_warp_groups_and_spills_little(name: str) -> None:
    index = list(PATTERNS).index(name)
    found = artefacts(name, "cuda:90", DTYPES[index // 4 % 2], HEAD_DIMS[index // 2 % 2])
    for one in found:
        assert one.asm["cubin"]
        assert one.warnings == ()
        assert one.shared <= SHARED
        assert unset_registers(one.text("sass")) == []
        assert one.spills is not None
        assert one.spills <= SPILLED
        tall = one.tile.block_m >= 64 and "combine" not in one.name
        assert ("wgmma.mma_async" in one.text("ptx")) == tall


@pytest.mark.parametrize(("name", "target"), shared_out(in_turn(ELSEWHERE)))
def test_every_gpu_gets_a_binary(name: str, target: str) -> None:
    index = ELSEWHERE.index(name) + list(BINARIES).index(target)
    for one in artefacts(name, target, DTYPES[index // 2 % 2], HEAD_DIMS[index % 2]):
        assert one.asm[BINARIES[target]]
        assert one.shared <= Target.of(target).shared


@pytest.mark.parametrize("target", shared_out(BINARIES))
def test_wide_heads_fit_into_the_shared_memory_of_each_gpu(target: str) -> None:
    for one in artefacts("dense", target, "bf16", 256):
        assert one.shared <= Target.of(target).shared


@pytest.mark.parametrize("target", shared_out(["cuda:90", "hip:gfx942"]))
def test_launches_that_repair_compile(target: str) -> None:
    for one in artefacts("window", target, "bf16", 64, repair=True):
        assert one.asm[BINARIES[target]]


@pytest.mark.parametrize(("dims", "repair"), shared_out(NARROW, [False, True]), ids=str)
def test_values_much_narrower_or_wider_than_keys(dims: tuple[int, int], repair: bool) -> None:
    for one in artefacts("dense", "cuda:90", "bf16", dims[0], Tile(64, 64, 4, 2), repair, dims[1]):
        assert unset_registers(one.text("sass")) == []


@pytest.mark.parametrize("head_dim", [24, 64])
def test_float32_compiles(head_dim: int) -> None:
    for one in artefacts("window", "cuda:90", "fp32", head_dim, Tile(32, 16, 4, 2)):
        assert one.asm["cubin"]


@pytest.mark.parametrize("target", shared_out([*reversed(BINARIES)]))
def test_numbers_of_64_bits_compile(target: str) -> None:
    for one in artefacts(NUMBERS, target, "bf16", 64):
        assert one.asm[BINARIES[target]]
