"""Generated kernels compile for the GPUs that we serve, and on Hopper into what Hopper is fast at.

Triton takes under a second a kernel. All patterns, dtypes and head dimensions meet sm_90; the other targets see each of
them once.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from tests.aot.compiling import Shape, assembled, compiled, kernels

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
SINGLE_WALK = ("dense", "window", "residues", "segments")
DTYPES = ("fp16", "bf16", "fp32")
HEAD_DIMS = (64, 128)
OTHER_TARGETS = (("cuda", 80, "cubin"), ("cuda", 100, "cubin"), ("hip", "gfx942", "hsaco"))
SHARED = 227 * 1024  # bytes that a block may have on sm_90
SPILLED = 256  # bytes: what a kernel of several walks may spill at the tile that is chosen for it


def usual(dtype: str, head_dim: int, careful: bool = False) -> Shape:
    """The tiles of `spattn.backends.triton.tiles` for walks of moderate length."""
    if dtype == "fp32":
        return Shape(dtype, head_dim, 64 if head_dim <= 64 else 32, 32, 4, 1 if careful else 2, careful)
    return Shape(dtype, head_dim, 64, 64, 4, 1 if careful else 3, careful)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PATTERNS)
def test_hopper_gets_matrix_products_of_warp_groups_and_no_spills(
    name: str, dtype: str, head_dim: int, tmp_path: Path
) -> None:
    for kernel in kernels(PATTERNS[name]).values():
        binary = compiled(kernel, usual(dtype, head_dim), "cuda", 90)
        assert binary.asm["cubin"]
        assert binary.metadata.shared <= SHARED
        report = assembled(binary, tmp_path)
        assert report.warnings == ()
        if dtype != "fp32":
            assert binary.asm["ptx"].count("wgmma.mma_async") > 0
            assert report.spilled <= (0 if name in SINGLE_WALK else SPILLED)


@pytest.mark.parametrize("target", OTHER_TARGETS, ids=str)
@pytest.mark.parametrize("name", PATTERNS)
def test_other_gpus_get_a_binary(name: str, target: tuple[str, int | str, str]) -> None:
    backend, architecture, artefact = target
    index = list(PATTERNS).index(name) + [t[1] for t in OTHER_TARGETS].index(architecture)
    shape = usual(DTYPES[index % 3], HEAD_DIMS[index // 3 % 2])
    for kernel in kernels(PATTERNS[name]).values():
        assert compiled(kernel, shape, backend, architecture).asm[artefact]


@pytest.mark.parametrize("target", [("cuda", 90, "cubin"), *OTHER_TARGETS], ids=str)
@pytest.mark.parametrize("name", ["window", "owners"])
def test_careful_launches_compile(name: str, target: tuple[str, int | str, str]) -> None:
    backend, architecture, artefact = target
    for dtype in DTYPES:
        for kernel in kernels(PATTERNS[name]).values():
            assert compiled(kernel, usual(dtype, 64, careful=True), backend, architecture).asm[artefact]


@pytest.mark.parametrize("head_dim", [24, 80, 256])
def test_padded_head_dimensions_compile(head_dim: int) -> None:
    stages = 2 if head_dim > 128 else 3
    shape = Shape("bf16", head_dim, 64, 32 if head_dim > 128 else 64, 4, stages)
    for kernel in kernels(PATTERNS["columns"]).values():
        assert compiled(kernel, shape, "cuda", 90).metadata.shared <= SHARED


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_long_walks_take_large_tiles_that_fit(head_dim: int, tmp_path: Path) -> None:
    for kernel in kernels(PATTERNS["dense"]).values():
        binary = compiled(kernel, Shape("bf16", head_dim, 128, 128, 8, 3), "cuda", 90)
        report = assembled(binary, tmp_path)
        assert binary.metadata.shared <= SHARED
        assert report.warnings == ()
        assert report.spilled <= 64
