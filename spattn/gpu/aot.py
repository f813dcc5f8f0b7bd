"""Kernels compiled ahead of time, for a GPU that need not be here: their assembly, and what they need of the machine.

Arguments are declared as a call on well-aligned tensors has them. Without that, Triton loads element by element, and
registers and spills are those of another kernel. Torch is not needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spattn.codegen.decode import DecodeSource
from spattn.codegen.kernel_specs import GRAD_KV, GRAD_Q
from spattn.codegen.languages import LANGUAGES
from spattn.codegen.model import COMBINED
from spattn.codegen.module import ModuleSource
from spattn.codegen.signature import Argument, Signature
from spattn.codegen.step_constants import StepConstants
from spattn.codegen.tile import Tile, padded, repair_tile
from spattn.cost.backward_tiles import Extent, backward_tile
from spattn.cost.choice import choose
from spattn.cost.decode_tiles import MOST_SPLITS, paged
from spattn.cost.sizes import Sizes
from spattn.errors import MissingDependencyError, UnsupportedError
from spattn.gpu.resource_usage import needs
from spattn.layout.boxes import sides_of
from spattn.layout.ir import Layout
from spattn.machine.device import Device
from spattn.machine.target import Target

ITEM_SIZES = {"fp16": 2, "bf16": 2, "fp32": 4}
USUAL_LENGTH, USUAL_HEADS = 8192, 16  # of the call for which tiles are chosen
USUAL_BATCH = 64  # requests of a decoder that is compiled ahead
KV_HEADS, DECODE_GROUP = 8, 4  # of a decoder that is compiled ahead, and the query heads of each
INTEGERS = {"given": "i32", "int64": "i64", "int32": "i32", "int8": "i8"}


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


def compile_ahead(
    source: ModuleSource,
    kernels: Mapping[str, Any],
    target: Target,
    dtype: str,
    head_dim: int,
    v_head_dim: int,
    tiles: Tile | Sequence[Tile],
    repair: bool = False,
    requests: bool = False,
) -> list[Artefact]:
    """The kernels of every pass of a module, for a GPU.

    Args:
        source: Generated text and its kernels.
        kernels: What `load` made of it.
        target: The GPU.
        dtype: "fp16", "bf16" or "fp32": of q, k, v and out.
        head_dim: Width of q and k.
        v_head_dim: Width of v and out.
        tiles: One for all passes, or one for each; where it has splits, they are combined by a kernel more.
        repair: The kernels that mend tiles which inf or NaN in a value spoiled, where a pass has one.
        requests: Has each batch entry lengths of its own?

    Raises:
        MissingDependencyError: Triton is not installed.
        UnsupportedError: This process interprets kernels, and so compiles none.
    """
    _require_compiler()
    each = [tiles] * len(source.passes) if isinstance(tiles, Tile) else list(tiles)
    each = [repair_tile(tile) for tile in each] if repair else each
    constants = _constants(head_dim, v_head_dim, ITEM_SIZES[dtype])
    constants |= {"REQUESTS": requests, "NO_TAIL": not requests, "ALL_KEYS": not requests}
    found = []
    for one, tile in zip(source.passes, each, strict=True):
        sides = dict(zip(one.sides, sides_of(one.boxes, tile.block_m, tile.block_n), strict=True))
        of_tile = {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "SPLIT_KV": tile.splits > 1, "PEELED": tile.peeled}
        of_tile |= {"RESUME": one.resume, "FINAL": one.final}
        known = {**constants, **of_tile, **sides}
        mends = repair and one.has_masked_tiles
        name, signature = (f"{one.name}_repair", one.repairing) if mends else (one.name, one.signature)
        found.append(_compiled(name, signature, kernels[name], target, dtype, tile, known))
        if tile.splits > 1:
            name, chunk = f"{one.name}_combine", {"BLOCK_D": COMBINED}
            found.append(_compiled(name, one.combining, kernels[name], target, dtype, tile, known | chunk))
    return found


def compile_decode_ahead(
    source: DecodeSource,
    kernel: Any,
    target: Target,
    dtype: str,
    head_dim: int,
    v_head_dim: int,
    tile: Tile,
    *,
    group: int = DECODE_GROUP,
    page_size: int = 0,
    positions: int = 1,
) -> Artefact:
    """The kernel of a decoder's steps, for a GPU.

    Args:
        source: Generated text.
        kernel: What `load` made of it.
        target: The GPU.
        dtype: "fp16", "bf16" or "fp32": of q, k, v and out.
        head_dim: Width of q and k.
        v_head_dim: Width of v and out.
        tile: Of rows, which are positions times the query heads that share keys, and keys.
        group: Query heads that share keys.
        page_size: Keys of a page, 0 without pages.
        positions: Of a request, in a tile.

    Raises:
        MissingDependencyError: Triton is not installed.
        UnsupportedError: This process interprets kernels, and so compiles none.
    """
    _require_compiler()
    tile = paged(tile) if page_size else tile
    constants = StepConstants(
        tile=tile,
        num_q_heads=group * KV_HEADS,
        group_size=group,
        head_dim=head_dim,
        v_head_dim=v_head_dim,
        itemsize=ITEM_SIZES[dtype],
        positions=positions,
        group=group,
        splits=MOST_SPLITS,
        batch=USUAL_BATCH,
        page_size=page_size,
        in_order=page_size % tile.block_n == 0,
    ).of(source)
    return _compiled("decode", source.signature, kernel, target, dtype, tile, constants)


def usual_backward_tiles(
    layout: Layout,
    transposed: Layout,
    dtype: str,
    head_dim: int,
    target: Target,
    languages: tuple[str, ...] = ("triton",),
) -> list[Tile]:
    """The tile of each pass of the gradients, first of dq, then of dk and dv."""
    device, ends = Device(shared=target.shared), (0, USUAL_LENGTH)
    extent = Extent(ends, ends, USUAL_LENGTH, USUAL_HEADS, 1, head_dim, ITEM_SIZES[dtype])
    kinds = ((GRAD_Q, layout), (GRAD_KV, transposed))
    return [backward_tile(kind, one, extent, device, languages) for kind, along in kinds for one in along.passes]


def usual_tiles(
    layout: Layout, dtype: str, head_dim: int, target: Target, languages: tuple[str, ...] = ("triton",)
) -> list[Tile]:
    """The tile of each pass in a call of some thousand tokens."""
    device, length = Device(shared=target.shared), USUAL_LENGTH
    sizes = Sizes(length, length, 0, USUAL_HEADS, 1, head_dim, ITEM_SIZES[dtype])
    return [choose(one, sizes, device, languages) for one in layout.passes]


def _require_compiler() -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        message = "TRITON_INTERPRET=1 makes Triton interpret kernels, and so compile none"
        raise UnsupportedError("E061", message, hint="env -u TRITON_INTERPRET")
    try:
        import triton  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("E050", "compiling needs Triton", hint="pip install 'spattn[triton]'") from error


def _constants(head_dim: int, v_head_dim: int, itemsize: int) -> dict[str, Any]:
    """What a call of these widths compiles in, but for the tile."""
    block_d, block_dv = padded(head_dim, v_head_dim, itemsize)
    strides = {f"stride_{name}": head_dim for name in ("qm", "kn", "dqm", "dkn")}
    strides |= {f"stride_{name}": v_head_dim for name in ("vn", "om", "dom", "dvn")} | {"stride_dlsem": 1}
    return {
        **strides,
        "num_q_heads": USUAL_HEADS,
        "group_size": 1,
        "HEAD_DIM": head_dim,
        "V_HEAD_DIM": v_head_dim,
        "BLOCK_D": block_d,
        "BLOCK_DV": block_dv,
        "LISTED_HEADS": False,
        "PRECISION": "ieee",
        "INT64_OFFSETS": False,
        "NO_TAIL": True,
        "SPLIT_KV": False,
        "PEELED": False,
        "ALL_KEYS": True,
        "REQUESTS": False,
        "REPAIR": False,
    }


def _compiled(
    name: str,
    signature: Signature,
    kernel: Any,
    target: Target,
    dtype: str,
    tile: Tile,
    constants: dict[str, Any],
) -> Artefact:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    arguments = signature.arguments
    goal = GPUTarget(target.backend, target.architecture, target.warp_size)
    options = LANGUAGES[tile.language].options(tile, cuda=target.backend == "cuda")
    found = triton.compile(
        ASTSource(
            fn=kernel,
            signature={one.name: _type(one, dtype) for one in arguments},
            constexprs={one.name: constants[one.name] for one in arguments if one.what == "constexpr"},
            attrs={(i,): [["tt.divisibility", 16]] for i, one in enumerate(arguments) if one.aligned},
        ),
        target=goal,
        options=options,
    )
    need = needs(found.asm, goal, options)
    shared = int(found.metadata.shared)
    return Artefact(name, tile, found.asm, need.registers, need.spills, shared, need.warnings)


def _type(one: Argument, dtype: str) -> str:
    """The type of an argument in a call of this dtype, as Triton writes it."""
    if one.what == "constexpr":
        return "constexpr"
    if one.what != "tensor":
        return one.element or "i32"
    elements = {"input": dtype, "cache": dtype, "fp32": "fp32", "part": "fp32" if dtype == "fp32" else "fp16"}
    return f"*{elements.get(one.element, INTEGERS.get(one.element))}"
