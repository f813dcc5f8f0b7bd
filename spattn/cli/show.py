"""`spattnc show`: the mask as a picture."""

from __future__ import annotations

import shutil
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from spattn.cli.options import (
    JsonOption,
    KOffsetOption,
    LayerOption,
    OutputOption,
    PatternArgument,
    QOffsetOption,
    SetOption,
)
from spattn.cli.output import can_print, write_json, write_result
from spattn.cli.patterns import read_pattern

if TYPE_CHECKING:
    from spattn.analysis.cells import Cells


class Format(StrEnum):
    """How a picture is written."""

    TEXT = "text"
    SVG = "svg"
    PNG = "png"


CELLS = {Format.TEXT: 64, Format.SVG: 256, Format.PNG: 512}
MAX_LENGTH = 10**12


def show(
    pattern: PatternArgument,
    q_len: Annotated[int, typer.Option("--q-len", "-n", min=1, max=MAX_LENGTH, help="Queries.")] = 64,
    kv_len: Annotated[
        int | None,
        typer.Option(
            "--kv-len",
            min=1,
            max=MAX_LENGTH,
            help="Keys of the whole; as many as queries, or up to the last of --keys.",
        ),
    ] = None,
    q_offset: QOffsetOption = None,
    k_offset: KOffsetOption = 0,
    keys: Annotated[
        int | None,
        typer.Option(
            "--keys", min=1, max=MAX_LENGTH, help="Keys that are given; all up to the last of the whole if not said."
        ),
    ] = None,
    form: Annotated[Format | None, typer.Option("--format", help="By the name of the file if not given.")] = None,
    output: OutputOption = None,
    head: Annotated[int, typer.Option("--head", min=0, help="Which head.")] = 0,
    settings: SetOption = None,
    layer: LayerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the mask: keys to the right, queries down. Long ones are drawn in cells, and no length is too long.

    Of a call that has some keys of a whole these are drawn, by their positions; rows count from the first query.
    """
    parsed = read_pattern(pattern, settings, layer)
    from spattn.analysis.cells import cells

    chosen = form or _by_name("" if output is None else output.suffix)
    if chosen is Format.PNG and output is None and not as_json:
        raise typer.BadParameter("a PNG goes into a file: -o FILE")
    most = CELLS[chosen]
    found = cells(parsed, q_len, kv_len, most, head, q_offset=q_offset, k_offset=k_offset, num_keys=keys)
    if as_json:
        _write_json(found, str(parsed))
    else:
        write_result(_picture(found, str(parsed), chosen, to_file=output is not None), output)


def _by_name(suffix: str) -> Format:
    return {".svg": Format.SVG, ".png": Format.PNG}.get(suffix.lower(), Format.TEXT)


def _picture(found: Cells, title: str, form: Format, *, to_file: bool) -> str | bytes:
    match form:
        case Format.SVG:
            from spattn.analysis.svg import svg_picture

            return svg_picture(found, title)
        case Format.PNG:
            from spattn.analysis.png import png_picture

            return png_picture(found, title)
    from spattn.analysis.text_picture import ASCII, BLOCKS, text_picture

    glyphs = BLOCKS if to_file or can_print(BLOCKS.of + BLOCKS.border) else ASCII
    width = 160 if to_file else shutil.get_terminal_size().columns
    return "\n".join(text_picture(found, glyphs, width)) + "\n"


def _write_json(found: Cells, pattern: str) -> None:
    from spattn.analysis.text_picture import shades

    data = {
        "pattern": pattern,
        "rows": found.rows.tolist(),
        "columns": found.columns.tolist(),
        "fraction": found.fraction.round(6).tolist(),
        "shade": shades(found),
        "how": found.how,
        "placement": list(found.placement),
        "example_tensors": found.sampled,
    }
    write_json("show", data)
