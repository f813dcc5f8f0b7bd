"""`spattnc explain`: what a pattern means, and what its kernels will do."""

from __future__ import annotations

from typing import Annotated

import typer

from spattn.cli.options import (
    BatchOption,
    HeadDimOption,
    HeadsOption,
    JsonOption,
    KvLenOption,
    LayerOption,
    PatternArgument,
    SetOption,
)
from spattn.cli.output import write, write_json
from spattn.cli.patterns import read_pattern


def explain(
    pattern: PatternArgument,
    q_len: Annotated[int, typer.Option("--q-len", "-n", min=0, help="Queries.")] = 4096,
    kv_len: KvLenOption = None,
    heads: HeadsOption = 1,
    batch: BatchOption = 1,
    head_dim: HeadDimOption = 128,
    settings: SetOption = None,
    layer: LayerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a pattern means, how many pairs it allows, and what its kernels do for them."""
    parsed = read_pattern(pattern, settings, layer)
    from spattn.analysis.explain import explain as explained

    found = explained(parsed, q_len, kv_len, num_heads=heads, batch_size=batch, head_dim=head_dim)
    if as_json:
        write_json("explain", found.to_dict())
    else:
        write(str(found))
