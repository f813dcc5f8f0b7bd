"""`spattnc explain`: what a pattern means, and what its kernels will do."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from spattn.cli.options import (
    BatchOption,
    HeadsOption,
    JsonOption,
    KeysOption,
    KOffsetOption,
    KvHeadsOption,
    KvLenOption,
    LayerOption,
    PatternArgument,
    QOffsetOption,
    SetOption,
)
from spattn.cli.output import write, write_json
from spattn.cli.patterns import read_pattern


class MissingKeys(StrEnum):
    """What becomes of a row that attends a key which is not given."""

    REFUSE = "refuse"
    IGNORE = "ignore"


def explain(
    pattern: PatternArgument,
    q_len: Annotated[int, typer.Option("--q-len", "-n", min=0, help="Queries.")] = 4096,
    kv_len: KvLenOption = None,
    heads: HeadsOption = 1,
    batch: BatchOption = 1,
    kv_heads: KvHeadsOption = None,
    head_dim: Annotated[int, typer.Option("--head-dim", min=1, help="Width of a head.")] = 128,
    v_head_dim: Annotated[
        int | None, typer.Option("--v-head-dim", min=1, help="Width of a head of v and out; as wide if not given.")
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="DTYPE", help="Of q, k, v and out: fp16, bf16, fp32 or fp64.")
    ] = "bf16",
    q_offset: QOffsetOption = None,
    k_offset: KOffsetOption = 0,
    keys: KeysOption = None,
    missing_keys: Annotated[
        MissingKeys, typer.Option("--missing-keys", help="What becomes of a row that attends a key which is not given.")
    ] = MissingKeys.REFUSE,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="As compiled with tune=True: by the tiles that were measured, if any were.")
    ] = False,
    settings: SetOption = None,
    layer: LayerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a pattern means, how many pairs it allows, and what its kernels do for them."""
    parsed = read_pattern(pattern, settings, layer)
    from spattn.attend import compile as compiled

    found = compiled(parsed, tune=tuned).explain(
        q_len,
        kv_len,
        num_heads=heads,
        num_kv_heads=kv_heads,
        batch_size=batch,
        head_dim=head_dim,
        v_head_dim=v_head_dim,
        dtype=dtype,
        q_offset=q_offset,
        k_offset=k_offset,
        num_keys=keys,
        missing_keys=missing_keys.value,
    )
    if as_json:
        write_json("explain", found.to_dict())
    else:
        write(str(found))
