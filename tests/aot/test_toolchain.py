"""What the other tests of this folder rest upon: Triton compiles for a GPU that is not here."""

from __future__ import annotations

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")
tl = pytest.importorskip("triton.language")


@triton.jit
def _double(x_ptr, length, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < length)
    tl.store(x_ptr + offsets, x * 2, mask=offsets < length)


@pytest.mark.aot
@pytest.mark.parametrize(
    ("backend", "architecture", "warp_size", "artefact"),
    [("cuda", 80, 32, "cubin"), ("cuda", 90, 32, "cubin"), ("hip", "gfx942", 64, "hsaco")],
)
def test_a_kernel_compiles_for_a_gpu_that_is_not_here(backend, architecture, warp_size, artefact):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {"x_ptr": "*fp32", "length": "i32", "BLOCK": "constexpr"}
    source = ASTSource(fn=_double, signature=signature, constexprs={"BLOCK": 128})
    options = {"enable_fp_fusion": True}
    kernel = triton.compile(source, target=GPUTarget(backend, architecture, warp_size), options=options)
    assert kernel.asm[artefact]
