"""Generated kernels compiled for a GPU that is not here, as Triton's own launcher would compile them. Needs no torch."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spattn.backends.triton.load import load
from spattn.compiler import Compiled, compile_pattern
from spattn.runtime.cache import default_cache

WARP = {"cuda": 32, "hip": 64}
SUMMARY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


@dataclass(frozen=True)
class Shape:
    """What a launch compiles in: dtype as Triton spells it, head dimension, tile, schedule."""

    dtype: str
    head_dim: int
    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    careful: bool = False

    @property
    def constants(self) -> dict[str, Any]:
        width = max(16, 1 << (self.head_dim - 1).bit_length())
        return {
            "HEAD_DIM": self.head_dim,
            "V_HEAD_DIM": self.head_dim,
            "BLOCK_D": width,
            "BLOCK_DV": width,
            "BLOCK_M": self.block_m,
            "BLOCK_N": self.block_n,
            "PAIRED": False,
            "PRECISION": "ieee",
            "CAREFUL": self.careful,
        }


@lru_cache(maxsize=64)
def compiled_pattern(pattern: str) -> Compiled:
    return compile_pattern(pattern)


def kernels(pattern: str) -> dict[str, Any]:
    """The passes of a pattern by name."""
    source = compiled_pattern(pattern).source()
    namespace = load(default_cache().publish(source.text), source.text)
    return {one.name: namespace[one.name] for one in source.passes}


def compiled(kernel: Any, shape: Shape, backend: str, architecture: int | str) -> Any:
    """One kernel for one target."""
    constants = shape.constants
    signature = {name: "constexpr" if name in constants else _type(name, shape.dtype) for name in kernel.arg_names}
    divisible = (name.endswith("_ptr") or name.startswith("stride_") for name in kernel.arg_names)
    attributes = {(i,): [["tt.divisibility", 16]] for i, yes in enumerate(divisible) if yes}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": shape.num_warps, "num_stages": shape.num_stages}
    return triton.compile(source, target=GPUTarget(backend, architecture, WARP[backend]), options=options)


def _type(name: str, dtype: str) -> str:
    if name in ("q_ptr", "k_ptr", "v_ptr", "out_ptr"):
        return f"*{dtype}"
    if name == "lse_ptr" or name.startswith("part_"):
        return "*fp32"
    if name.endswith("_ptr"):
        return "*i32"
    return "fp32" if name == "qk_scale" else "i32"


@dataclass(frozen=True)
class Report:
    """What ptxas says: bytes spilled to local memory, and its words about serialised matrix products."""

    spilled: int
    warnings: tuple[str, ...]


def assembled(kernel: Any, folder: Path, architecture: str = "sm_90a") -> Report:
    """The report of ptxas -v on a kernel's PTX."""
    ptx = folder / "kernel.ptx"
    ptx.write_text(kernel.asm["ptx"], encoding="utf-8")
    command = [
        triton.knobs.nvidia.ptxas.path,
        "-v",
        f"--gpu-name={architecture}",
        "-o",
        str(folder / "cubin"),
        str(ptx),
    ]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = sum(int(found[2]) for found in SUMMARY.finditer(words))
    return Report(spilled, tuple(line for line in words.splitlines() if "wgmma" in line))
