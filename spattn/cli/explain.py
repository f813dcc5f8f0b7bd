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
    ShapeOfCall,
)
from spattn.cli.output import write, write_json
from spattn.cli.patterns import read_pattern


class MissingKeys(StrEnum):
    """What becomes of a row that attends a key which is not given."""

    REFUSE = "refuse"
    IGNORE = "ignore"


def explain(
    pattern: PatternArgument,
    q_len: Annotated[
        int | None, typer.Option("--q-len", "-n", min=0, help="Queries: 4096, or 1 in a step, if not given.")
    ] = None,
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
    shape: Annotated[
        ShapeOfCall,
        typer.Option("--shape", help="A call, or a decoder's step of --q-len rows over --kv-len keys of each request."),
    ] = ShapeOfCall.PREFILL,
    page_size: Annotated[int | None, typer.Option("--page-size", min=1, help="Keys of a page, for a step.")] = None,
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

    of_calls = {
        "--v-head-dim": v_head_dim is not None,
        "--q-offset": q_offset is not None,
        "--k-offset": k_offset != 0,
        "--keys": keys is not None,
        "--missing-keys": missing_keys is not MissingKeys.REFUSE,
        "--tuned": tuned,
    }
    if shape is ShapeOfCall.DECODE and any(of_calls.values()):
        name = next(name for name, said in of_calls.items() if said)
        raise typer.BadParameter(f"{name} says nothing of a decoder's step: leave it out, or --shape")
    if shape is ShapeOfCall.PREFILL and page_size is not None:
        raise typer.BadParameter("pages are a decoder's: --page-size goes with --shape decode")
    if shape is ShapeOfCall.DECODE:
        from spattn.analysis.decode import StepOf, explain_decode
        from spattn.call.shape import ITEMSIZE, dtype_name

        sizes = heads, kv_heads or heads, head_dim, ITEMSIZE[dtype_name(dtype)]
        step = StepOf(*sizes, batch, 131072 if kv_len is None else kv_len, q_len or 1, page_size)
        explained = explain_decode(compiled(parsed), step)
        if as_json:
            write_json("explain", explained.to_dict())
        else:
            write(str(explained))
        return
    found = compiled(parsed, tune=tuned).explain(
        4096 if q_len is None else q_len,
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
