"""Kernels compiled ahead of time, for a GPU that need not be here: their assembly, and what they need of the machine.

Arguments are declared as a call on well-aligned tensors has them. Without that, Triton loads element by element, and
registers and spills are those of another kernel. Torch is not needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spattn.backends.triton.needs import needs
from spattn.backends.triton.targets import Target
from spattn.backends.triton.tiles import Tile, choose, expected_keys, next_power
from spattn.codegen.module import ModuleSource, PassSource
from spattn.codegen.parameters import Membership
from spattn.errors import MissingDependencyError, UnsupportedError
from spattn.layout.ir import Layout

ALIGNED = re.compile(r"\w+_ptr|stride_[qkvo]\w+")
ITEM_SIZES = {"fp16": 2, "bf16": 2, "fp32": 4}
USUAL_LENGTH = 8192  # the length at which tiles are chosen
FLOATS = ("lse_ptr", "part_in_ptr", "part_in_lse_ptr", "part_out_ptr", "part_out_lse_ptr")


@dataclass(frozen=True)
class Artefact:
    """One pass, compiled.

    Attributes:
        name: The kernel's.
        tile: The tile that it was compiled for.
        asm: Forms of the code by name: ttir, ttgir, llir, ptx and cubin; amdgcn and hsaco for HIP.
        registers: A thread's; None where the compiler does not say.
        spills: Bytes a thread stores and loads because registers ran out.
        shared: Bytes of shared memory a block.
        warnings: Of ptxas: WGMMA that had to be serialised, mostly.
    """

    name: str
    tile: Tile
    asm: Mapping[str, Any]
    registers: int | None
    spills: int | None
    shared: int
    warnings: tuple[str, ...]

    def text(self, stage: str) -> str:
        """A form of the code as text, `sass` included.

        Raises:
            UnsupportedError: E041, this target has no such form.
        """
        try:
            found = self.asm[stage]
        except KeyError:
            raise UnsupportedError("E041", f"there is no {stage} for this target") from None
        return str(found)


@dataclass(frozen=True)
class _Dtype:
    """An element type by Triton's name."""

    name: str

    @property
    def itemsize(self) -> int:
        return ITEM_SIZES[self.name]


def compile_ahead(
    source: ModuleSource,
    kernels: Mapping[str, Any],
    target: Target,
    dtype: str,
    head_dim: int,
    v_head_dim: int,
    tiles: Tile | Sequence[Tile],
    careful: bool = False,
) -> list[Artefact]:
    """Every pass of a module for a GPU.

    Args:
        source: Generated text and its kernels.
        kernels: What `load` made of it.
        target: The GPU.
        dtype: "fp16", "bf16" or "fp32": of q, k, v and out.
        head_dim: Width of q and k.
        v_head_dim: Width of v and out.
        tiles: One for all passes, or one for each.
        careful: The launch that mends tiles which inf or NaN in a value spoiled.

    Raises:
        MissingDependencyError: Triton is not installed.
        UnsupportedError: This process interprets kernels, and so compiles none.
    """
    _require_compiler()
    each = [tiles] * len(source.passes) if isinstance(tiles, Tile) else list(tiles)
    each = [replace(tile, num_stages=1) for tile in each] if careful else each
    constants = {**_constants(head_dim, v_head_dim), "CAREFUL": careful}
    return [
        _compiled(one, kernels[one.name], target, dtype, tile, constants)
        for one, tile in zip(source.passes, each, strict=True)
    ]


def usual_tiles(layout: Layout, dtype: str, head_dim: int, target: Target) -> list[Tile]:
    """The tile of each pass in a call of some thousand tokens."""
    return [
        choose(one, _Dtype(dtype), head_dim, USUAL_LENGTH, expected_keys(one, USUAL_LENGTH), target.shared)
        for one in layout.passes
    ]


def _require_compiler() -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        message = "TRITON_INTERPRET=1 makes Triton interpret kernels, and so compile none"
        raise UnsupportedError("E061", message, hint="env -u TRITON_INTERPRET")
    try:
        import triton  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("E050", "compiling needs Triton", hint="pip install 'spattn[triton]'") from error


def _constants(head_dim: int, v_head_dim: int) -> dict[str, Any]:
    """What a call of that width compiles in, but for the tile."""
    return {
        "HEAD_DIM": head_dim,
        "V_HEAD_DIM": v_head_dim,
        "BLOCK_D": next_power(head_dim),
        "BLOCK_DV": next_power(v_head_dim),
        "PAIRED": False,
        "PRECISION": "ieee",
        "CAREFUL": False,
    }


def _compiled(
    one: PassSource, kernel: Any, target: Target, dtype: str, tile: Tile, constants: dict[str, Any]
) -> Artefact:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {**constants, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n}
    signature = {name: _type(name, one, dtype, constants) for name in kernel.arg_names}
    aligned = [i for i, name in enumerate(kernel.arg_names) if ALIGNED.fullmatch(name)]
    found = triton.compile(
        ASTSource(
            fn=kernel,
            signature=signature,
            constexprs={name: value for name, value in constants.items() if name in signature},
            attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
        ),
        target=GPUTarget(target.backend, target.architecture, target.warp_size),
        options={"num_warps": tile.num_warps, "num_stages": tile.num_stages},
    )
    need = needs(found.asm)
    shared = int(found.metadata.shared)
    return Artefact(one.name, tile, found.asm, need.registers, need.spills, shared, need.warnings)


def _type(name: str, one: PassSource, dtype: str, constants: Mapping[str, Any]) -> str:
    """The type of a kernel's argument, by its name."""
    if name in constants:
        return "constexpr"
    if name in ("q_ptr", "k_ptr", "v_ptr", "out_ptr"):
        return f"*{dtype}"
    if name in FLOATS:
        return "*fp32"
    if name.endswith("_ptr"):
        return "*i8" if name == "spoiled_ptr" or _is_membership(name, one) else "*i32"
    return "fp32" if name == "qk_scale" else "i32"


def _is_membership(name: str, one: PassSource) -> bool:
    numbered = re.fullmatch(r"t(\d+)_ptr", name)
    return numbered is not None and isinstance(one.roles[int(numbered[1])], Membership)
