"""The kernel that appends to caches compiles for the GPUs that we serve, for each kind of cache and number."""

from __future__ import annotations

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spattn.kernels.serving import append_kernel

pytestmark = pytest.mark.aot

TARGETS = {
    "cuda:80": GPUTarget("cuda", 80, 32),
    "cuda:90": GPUTarget("cuda", 90, 32),
    "hip:gfx942": GPUTarget("hip", "gfx942", 64),
}
USUAL = {"SEARCH": 7, "PAGE_SIZE": 0, "PIECES": 0, "RING": False, "K_SCALES": 0, "V_SCALES": 0, "MANTISSA": 0}
WIDTHS = {"MOST": 448.0, "HEAD_DIM": 128, "V_HEAD_DIM": 96, "BLOCK": 128}
ABSENT = ("k_scale_ptr", "v_scale_ptr", "cu_ptr", "table_ptr", "starts_ptr", "kept_ptr")
CASES = {
    "dense, padded, new 1": ({"SEARCH": 0, "new": 1, "batch": 1}, ("bf16", "bf16"), ()),
    "rows": ({"PAGE_SIZE": 16}, ("fp16", "fp16"), ("cu_ptr", "table_ptr")),
    "csr of pages of 1": (
        {"PAGE_SIZE": 1, "K_SCALES": 1},
        ("fp32", "bf16"),
        ("cu_ptr", "table_ptr", "starts_ptr", "k_scale_ptr"),
    ),
    "ring": ({"RING": True, "PIECES": 2, "window": 1}, ("bf16", "bf16"), ("cu_ptr", "kept_ptr")),
    "float8": ({"MANTISSA": 3, "K_SCALES": 8, "V_SCALES": 1}, ("bf16", "u8"), ("cu_ptr", "k_scale_ptr", "v_scale_ptr")),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_it_compiles(case: str, target: str) -> None:
    special, (given, stored), there = CASES[case]
    constants = {**USUAL, **WIDTHS, **dict.fromkeys(set(ABSENT) - {*there}), **special}
    kinds = {"k_new_ptr": given, "v_new_ptr": given, "keys_ptr": stored, "values_ptr": stored}
    kinds |= {"k_scale_ptr": "fp32", "v_scale_ptr": "fp32"}
    types = {
        name: "constexpr" if name in constants else f"*{kinds.get(name, 'i32')}" if name.endswith("_ptr") else "i32"
        for name in append_kernel.arg_names
    }
    source = ASTSource(append_kernel, types, {(append_kernel.arg_names.index(key),): x for key, x in constants.items()})
    assert triton.compile(source, target=TARGETS[target], options={"num_warps": 4, "enable_fp_fusion": True}).asm[
        "ttir"
    ]
