"""Kernels that derive lists compile for the GPUs that we serve, for every type of number that a tensor may have."""

from __future__ import annotations

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spattn.gpu import derivation_kernels as kernels

pytestmark = pytest.mark.aot

TARGETS = {"cuda:90": GPUTarget("cuda", 90, 32), "hip:gfx942": GPUTarget("hip", "gfx942", 64)}
GIVEN = ("Q_OFFSET", "K_OFFSET", "KV_LEN", "Q_LENS", "KV_LENS", "CU_Q", "CU_K")
READ = (
    "table_ptr",
    "tokens_ptr",
    "ids_ptr",
    "seen_ptr",
    "starts_ptr",
    "cu_q_ptr",
    "kv_len_ptr",
)  # of the user's; the others are ours
KERNELS = {
    "list_blocks": {"BLOCK": 256},
    "place_tokens": {"REQUESTS": True, "BLOCK": 64},
    "sort_places": {"BLOCK": 64},
    "mark_tokens": {"REQUESTS": True, "BLOCK": 1024},
    "clear": {"BLOCK": 1024},
    "enter_documents": {"SLOTS": 4096, "BLOCK": 1024},
    "find_documents": {"SLOTS": 4096, "PLACED": True, "BLOCK": 1024},
    "number_segments": {"BLOCK": 1024},
    "find_segments": {"BLOCK": 1024},
    "place_requests": {**dict.fromkeys(GIVEN, 2), "BLOCK": 128},
}


OURS = {"number_segments": {"ids_ptr": "*i32"}, "place_requests": {"table_ptr": "*i32"}}


@pytest.mark.parametrize(("target", "dtype"), [("cuda:90", "i8"), ("cuda:90", "i64"), ("hip:gfx942", "i64")])
@pytest.mark.parametrize("name", KERNELS)
def test_it_compiles(name: str, target: str, dtype: str, request: pytest.FixtureRequest) -> None:
    if name == "enter_documents" and target.startswith("hip") and triton.__version__.startswith("3.6."):
        why = "Triton 3.6 compiles no compare-and-swap for AMD GPUs; a call is refused"
        request.applymarker(pytest.mark.xfail(reason=why, raises=RuntimeError))
    kernel, constants = getattr(kernels, name), KERNELS[name]
    ours = {"marks_ptr": "*i8"} | OURS.get(name, {})
    types = {}
    for argument in kernel.arg_names:
        usual = f"*{dtype}" if argument in READ else "*i32" if argument.endswith("_ptr") else "i32"
        types[argument] = "constexpr" if argument in constants else ours.get(argument, usual)
    source = ASTSource(kernel, types, {(kernel.arg_names.index(key),): value for key, value in constants.items()})
    options = {"num_warps": 4, "enable_fp_fusion": True}
    assert triton.compile(source, target=TARGETS[target], options=options).asm["ttir"]
