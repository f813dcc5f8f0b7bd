"""`spattnc emit`: a pattern at each stage of the road."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spattn.cli.exits import say
from spattn.cli.options import (
    HeadDimOption,
    JsonOption,
    LayerOption,
    OutputOption,
    PatternArgument,
    SetOption,
    ShapeOfCall,
)
from spattn.cli.output import write_json, write_result
from spattn.cli.patterns import read_pattern
from spattn.machine.target import Target

if TYPE_CHECKING:
    from spattn.attend import Attention
    from spattn.codegen.module import ModuleSource
    from spattn.gpu.aot import Artefact
    from spattn.pattern import Pattern


class Stage(StrEnum):
    """Where on the road."""

    PATTERN = "pattern"
    RELATION = "relation"
    LAYOUT = "layout"
    SOURCE = "source"
    TTIR = "ttir"
    TTGIR = "ttgir"
    PTX = "ptx"
    SASS = "sass"
    AMDGCN = "amdgcn"


class Direction(StrEnum):
    """Attention, or its gradients."""

    FORWARD = "forward"
    BACKWARD = "backward"


class Dtype(StrEnum):
    """Of q, k, v and out."""

    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"


COMMENT = {Stage.TTIR: "//", Stage.TTGIR: "//", Stage.PTX: "//", Stage.SASS: "//", Stage.AMDGCN: ";"}


def emit(
    pattern: PatternArgument,
    stage: Annotated[Stage, typer.Option("--stage", help="Where on the road to stop.")] = Stage.SOURCE,
    target: Annotated[str, typer.Option("--target", help="The GPU: cuda:90, hip:gfx942, ..")] = "cuda:90",
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Of q, k, v and out.")] = Dtype.BF16,
    head_dim: HeadDimOption = 128,
    direction: Annotated[
        Direction, typer.Option("--direction", help="Attention, or its gradients; backward layouts have keys as rows.")
    ] = Direction.FORWARD,
    shape: Annotated[
        ShapeOfCall, typer.Option("--shape", help="A call, or a decoder's step: the kernel that reads caches.")
    ] = ShapeOfCall.PREFILL,
    group: Annotated[
        int, typer.Option("--group", min=0, help="Which group, where heads differ; --stage layout lists them.")
    ] = 0,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Write out the functions that generated source imports.")
    ] = False,
    score: Annotated[
        str | None, typer.Option("--score", help="What becomes of the scores before the mask: softcap(30), ..")
    ] = None,
    settings: SetOption = None,
    layer: LayerOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a pattern at a stage of the road: as text, as sets, as passes, as generated source, as machine code.

    No GPU is needed. Machine code is that of the usual tile sizes.
    """
    parsed = read_pattern(pattern, settings, layer)
    details: dict[str, Any] = {}
    decodes = shape is ShapeOfCall.DECODE
    if decodes and direction is Direction.BACKWARD:
        raise typer.BadParameter("a decoder's step has no gradients: leave out --direction or --shape")
    match stage:
        case Stage.PATTERN:
            text = f"{parsed}\n"
        case Stage.RELATION:
            text = _relation(parsed)
        case Stage.LAYOUT:
            text = _layouts(_attention(parsed, score), direction)
        case Stage.SOURCE:
            attn = _attention(parsed, score)
            values = _chosen(attn, group)
            module = attn.decode_source(values) if decodes else _module(attn, values, direction)
            text = module.standalone if standalone else module.text
        case _:
            attn = _attention(parsed, score)
            values, gpu = _chosen(attn, group), Target.of(target)
            if decodes:
                found = [_decode_artefact(attn, values, gpu, dtype, head_dim)]
            else:
                found = _artefacts(attn, values, direction, gpu, dtype, head_dim)
            text, details = _machine_code(found, stage, gpu, dtype)
    if as_json:
        write_json("emit", {"pattern": str(parsed), "stage": stage.value, "text": text, **details})
    else:
        write_result(text, output)


def _attention(pattern: Pattern, score: str | None) -> Attention:
    from spattn.attend import compile as compiled

    return compiled(pattern, score=score)


def _relation(pattern: Pattern) -> str:
    from spattn.expressions.text import text
    from spattn.relation.terms import disjunction

    terms = disjunction(pattern.condition)
    lines = [f"means  {text(pattern.condition)}"]
    if terms is None:
        lines.append("terms  too many to list")
    for i, term in enumerate(terms or ()):
        lines.append(f"term {i}: {text(term.affine)}")
        lines += [f"  where {text(guard)}" for guard in term.guards]
    return "\n".join(lines) + "\n"


def _groups(attn: Attention) -> list[tuple[bool, ...]]:
    """Groups of heads with a plan of their own, as they are among 64 heads."""
    return list(attn.groups(1, 64))


def _chosen(attn: Attention, group: int) -> tuple[bool, ...]:
    found = _groups(attn)
    if group >= len(found):
        raise typer.BadParameter(f"there is no group {group}: heads fall into {len(found)}")
    if len(found) > 1:
        say(f"note: heads fall into {len(found)} groups with a plan each; this is group {group}, --group names another")
    return found[group]


def _module(attn: Attention, values: tuple[bool, ...], direction: Direction) -> ModuleSource:
    return attn.module_of(values) if direction is Direction.FORWARD else attn.backward_module_of(values)


def _layouts(attn: Attention, direction: Direction) -> str:
    from spattn.expressions.text import text
    from spattn.layout.describe import describe

    found = _groups(attn)
    lines = []
    for i, values in enumerate(found):
        layout = attn.layout_of(values) if direction is Direction.FORWARD else attn.transposed_of(values)
        lines += [f"group {i}: heads where {text(layout.condition)}"] if len(found) > 1 else []
        lines += [*describe(layout), *(f"note: approximated ({note}); masks are exact" for note in layout.notes)]
    return "\n".join(lines) + "\n"


def _artefacts(
    attn: Attention, values: tuple[bool, ...], direction: Direction, gpu: Target, dtype: Dtype, head_dim: int
) -> list[Artefact]:
    from spattn.gpu.aot import compile_ahead, usual_backward_tiles, usual_tiles
    from spattn.gpu.load import load

    source, layout = _module(attn, values, direction), attn.layout_of(values)
    if direction is Direction.FORWARD:
        tiles = usual_tiles(layout, dtype.value, head_dim, gpu)
    else:
        tiles = usual_backward_tiles(layout, attn.transposed_of(values), dtype.value, head_dim, gpu)
    kernels = load(attn.publish(source.text), source.text) if source.passes else {}
    return compile_ahead(source, kernels, gpu, dtype.value, head_dim, head_dim, tiles)


def _decode_artefact(attn: Attention, values: tuple[bool, ...], gpu: Target, dtype: Dtype, head_dim: int) -> Artefact:
    from spattn.cost.decode_tiles import usual_tile
    from spattn.gpu.aot import DECODE_GROUP, ITEM_SIZES, compile_decode_ahead
    from spattn.gpu.load import load

    source = attn.decode_source(values)
    kernel = load(attn.publish(source.text), source.text)["decode"]
    tile = usual_tile(head_dim, ITEM_SIZES[dtype.value], DECODE_GROUP)
    return compile_decode_ahead(source, kernel, gpu, dtype.value, head_dim, head_dim, tile)


def _machine_code(found: list[Artefact], stage: Stage, gpu: Target, dtype: Dtype) -> tuple[str, dict[str, Any]]:
    for one in found:
        say(_summary(one))
    parts = [f"{COMMENT[stage]} {_summary(one)}\n{one.text(stage.value).rstrip()}\n" for one in found]
    return "\n".join(parts), {"target": str(gpu), "dtype": dtype.value, "passes": [_row(one) for one in found]}


def _summary(one: Artefact) -> str:
    tile = one.tile
    needs = [f"{one.registers} registers", f"{one.spills} bytes spilled", f"{one.shared} bytes shared"]
    notes = [f"{len(one.warnings)} warnings about wgmma"] if one.warnings else []
    return ", ".join([f"{one.name}: {tile.block_m} x {tile.block_n} tiles, {tile.num_warps} warps", *needs, *notes])


def _row(one: Artefact) -> dict[str, Any]:
    return {
        "name": one.name,
        "block_m": one.tile.block_m,
        "block_n": one.tile.block_n,
        "num_warps": one.tile.num_warps,
        "num_stages": one.tile.num_stages,
        "registers": one.registers,
        "spilled_bytes": one.spills,
        "shared_bytes": one.shared,
        "warnings": one.warnings,
    }
