"""Generated kernels compile for the GPUs that we serve, and on Hopper into what Hopper is fast at.

Each pattern meets sm_90 at both head dimensions, one by either end of the range of Triton, and one other target. Exact
float32 products, which Triton unrolls, take ten times as long to compile as others: one pattern speaks for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import cycle

import pytest

from spattn.cache.store import default_cache
from spattn.codegen.tile import Tile
from spattn.compiler import Compiled, compile_pattern
from spattn.gpu import aot
from spattn.gpu.aot import Artefact, Target, compile_ahead, usual_backward_tiles, usual_tiles
from spattn.gpu.load import load
from tests.aot.sass import unset_registers
from tests.aot.shared_out import OLDEST, shared_out

pytestmark = pytest.mark.aot

PATTERNS = {
    "dense": "causal",
    "window": "last(1024)",
    "residues": "last(512, dilation=4)",
    "columns": "columns([::512]) & causal | last(256)",
    "owners": "local(128) | global([0, 7])",
    "runs": "fixed(128, 8) & causal",
    "segments": "documents(ids) & causal",
    "blocks": "local(128) | random(3)",
}
NUMBERS = "local(2147483647) & where(q * 1000000000 > k)"  # of 64 bits, in bounds and in masks
READING = (
    "~(random(3, block=7) | nsa_selected(table, 4))",
    "~(neighborhood([5, 5, 4], [8, 8, 1], dilation=[5, 7, 2], border=shift)"
    " | nsa_selected(table, 4) | streaming_llm(63))",
)
SERIALISED = "(C7512)"  # wgmma, for want of registers
SINGLE_WALK = ("dense", "window", "residues", "segments")
HEAD_DIMS = (64, 128)
NARROW = ((16, 32), (64, 16), (128, 32), (32, 128))
DTYPES = ("bf16", "fp16")
BINARIES = {"cuda:80": "cubin", "cuda:90": "cubin", "cuda:100": "cubin", "hip:gfx942": "hsaco"}
SHARED = 227 * 1024  # bytes that a block may have on sm_90
SPILLED = 640  # bytes, stores and loads, that a kernel of several walks or of the largest tile may spill; 3.9: 556
SMALL = Tile(64, 64, 4, 3)
NONE = 64 if OLDEST else 0  # 3.6 keeps fewer values in registers


@lru_cache(maxsize=64)
def pattern(text: str) -> Compiled:
    return compile_pattern(text)


def artefacts(
    name: str,
    target: str,
    dtype: str,
    head_dim: int,
    tile: Tile | None = None,
    repair: bool = False,
    v_head_dim: int | None = None,
    backward: bool = False,
    requests: bool = False,
) -> list[Artefact]:
    """The passes of a pattern, or of its gradients, at the tiles that a call of some thousand tokens takes."""
    one, gpu = pattern(PATTERNS.get(name, name)), Target.of(target)
    if backward:
        source, along = one.backward_source(), (one.layout(), one.layout((), "keys"))
        usual = usual_backward_tiles(*along, dtype, head_dim, gpu)
    else:
        source, usual = one.source(), usual_tiles(one.layout(), dtype, head_dim, gpu)
    kernels = load(default_cache().publish(source.text), source.text)
    dims = head_dim, v_head_dim or head_dim
    return compile_ahead(source, kernels, gpu, dtype, *dims, tile or usual, repair, requests)


@pytest.mark.parametrize(("name", "backward"), shared_out(["dense", "columns"], [False, True]))
def test_kernels_for_requests_of_their_own_lengths_compile(name: str, backward: bool) -> None:
    for found in artefacts(name, "cuda:90", "bf16", 64, backward=backward, requests=True):
        assert found.asm["cubin"]


def in_turn(names: Iterable[str]) -> list[tuple[str, str]]:
    """Each pattern with one of the GPUs besides sm_90, which has tests of its own."""
    return list(zip(names, cycle(target for target in BINARIES if target != "cuda:90"), strict=False))


@pytest.mark.parametrize(("name", "head_dim"), shared_out(PATTERNS, HEAD_DIMS))
def test_hopper_gets_matrix_products_of_warp_groups_and_spills_little(name: str, head_dim: int) -> None:
    dtype = DTYPES[list(PATTERNS).index(name) // 2 % 2]
    for found in artefacts(name, "cuda:90", dtype, head_dim):
        assert found.asm["cubin"]
        if found.tile.block_m >= 64 and not found.name.endswith("_combine"):
            assert "wgmma.mma_async" in found.text("ptx")
        # fewer registers for more programs: ptxas then lets no two products run at once, and still it is faster
        told = [warning for warning in found.warnings if not (found.tile.registers and SERIALISED in warning)]
        assert told == []
        assert found.shared <= SHARED
        assert unset_registers(found.text("sass")) == []
        assert found.spills is not None
        assert found.spills <= (NONE if name in SINGLE_WALK and found.tile == SMALL else SPILLED)


@pytest.mark.parametrize("backward", [False, True])
def test_documents_of_two_sides_spill_little(backward: bool) -> None:
    """Their rows are counted once a tile and in 32 bits: read and counted with 64 in each mask, 5 KB were spilled."""
    for found in artefacts("within(q_ids, ids, last(512) | sink(4))", "cuda:90", "bf16", 128, backward=backward):
        assert found.spills is not None
        assert found.spills <= SPILLED
        assert unset_registers(found.text("sass")) == []


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_one_walk_at_the_small_tile_spills_nothing(head_dim: int) -> None:
    for found in artefacts("dense", "cuda:90", "bf16", head_dim, SMALL):
        assert found.spills is not None
        assert found.spills <= NONE
        assert found.warnings == ()


@pytest.mark.parametrize(("name", "target"), shared_out(in_turn(PATTERNS)))
def test_every_gpu_gets_a_binary(name: str, target: str) -> None:
    index = list(PATTERNS).index(name) + list(BINARIES).index(target)
    for found in artefacts(name, target, DTYPES[index % 2], HEAD_DIMS[index // 2 % 2]):
        assert found.asm[BINARIES[target]]
        assert found.shared <= Target.of(target).shared


@pytest.mark.parametrize(("target", "dtype"), shared_out(BINARIES, ["bf16", "fp32"]))
def test_tiles_fit_into_the_shared_memory_of_each_gpu(target: str, dtype: str) -> None:
    for found in artefacts("dense", target, dtype, 256):
        assert found.shared <= Target.of(target).shared


@pytest.mark.parametrize("target", shared_out(BINARIES))
def test_launches_that_repair_compile(target: str) -> None:
    for found in artefacts("window", target, "bf16", 64, repair=True):
        assert found.asm[BINARIES[target]]


@pytest.mark.parametrize(("dims", "repair"), shared_out(NARROW, [False, True]), ids=str)
def test_values_much_narrower_or_wider_than_keys(dims: tuple[int, int], repair: bool) -> None:
    for found in artefacts("dense", "cuda:90", "bf16", dims[0], SMALL, repair, dims[1]):
        assert unset_registers(found.text("sass")) == []


def test_an_unset_register_is_seen() -> None:
    listing = [
        "ULDC.64 UR8, c[0x0][0x220];",
        "@P0 LDG.E.128 R4, desc[UR8][R2.64];",
        "UIADD3 UR34, UP0, UR34, 0x40, URZ;",
        "UMOV UR15, 0x80000020;",
        "HGMMA.64x32x16.F32 R56, R24, gdesc[UR12].tnspB, R56;",
    ]
    assert unset_registers("\n".join(listing)) == [listing[2], listing[4]]


@pytest.mark.parametrize(("name", "repair"), shared_out(READING, [False, True]))
def test_float32_compiles_where_masks_read_tensors(name: str, repair: bool) -> None:
    for found in artefacts(name, "cuda:90", "fp32", 64, Tile(32, 16, 4, 1), repair):
        assert found.asm["cubin"]


@pytest.mark.parametrize(("target", "repair"), shared_out(BINARIES, [False, True]))
def test_float32_compiles(target: str, repair: bool) -> None:
    for found in artefacts("window", target, "fp32", 64, Tile(32, 16, 4, 2), repair):
        assert found.asm[BINARIES[target]]


@pytest.mark.parametrize("head_dim", [24, 80, 256])
def test_padded_and_wide_heads_compile(head_dim: int) -> None:
    for found in artefacts("columns", "cuda:90", "bf16", head_dim):
        assert found.shared <= SHARED


@pytest.mark.parametrize("target", shared_out([*reversed(BINARIES)]))
def test_numbers_of_64_bits_compile(target: str) -> None:
    for found in artefacts(NUMBERS, target, "bf16", 64):
        assert found.asm[BINARIES[target]]


@pytest.mark.parametrize("repair", [False, True])
def test_numbers_of_64_bits_join_others(repair: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call's own tensors may have them: the ends of one walk then have other types than those of the next."""
    known = aot._type
    monkeypatch.setattr(aot, "_type", lambda name, *rest: "*i64" if name == "t0_ptr" else known(name, *rest))
    assert artefacts("valid(lengths) & causal | last(5)", "cuda:90", "bf16", 64, SMALL, repair)
