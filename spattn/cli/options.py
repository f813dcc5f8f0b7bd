"""Arguments and options that commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

PatternArgument = Annotated[
    str,
    typer.Argument(metavar="PATTERN", help="A pattern, - for standard input, @FILE for a file.", show_default=False),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=INT", help="Bind a name; may be given again.")
]
LayerOption = Annotated[int | None, typer.Option("--layer", min=0, help="The layer that layers(..) asks about.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to standard output.")
]
KvLenOption = Annotated[
    int | None,
    typer.Option("--kv-len", min=0, help="Keys of the whole; as many as queries, or up to the last of --keys."),
]
KeysOption = Annotated[
    int | None, typer.Option("--keys", min=0, help="Keys that are given; all up to the last of the whole if not said.")
]
QOffsetOption = Annotated[
    int | None,
    typer.Option(
        "--q-offset", help="Position of the first query among the keys; the last is at the last if not given."
    ),
]
KOffsetOption = Annotated[int, typer.Option("--k-offset", help="Position of the first key that is given.")]
HeadsOption = Annotated[int, typer.Option("--heads", min=1, help="Query heads.")]
KvHeadsOption = Annotated[int | None, typer.Option("--kv-heads", min=1, help="Key heads; as many if not given.")]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Batch entries.")]
HeadDimOption = Annotated[int, typer.Option("--head-dim", min=1, max=256, help="Width of a head.")]


class ShapeOfCall(StrEnum):
    """A call with keys and values as tensors, or a decoder's step over caches."""

    PREFILL = "prefill"
    DECODE = "decode"
