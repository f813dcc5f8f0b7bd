"""`spattnc tune`: the tiles of a pattern's kernels, measured on this machine's GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from spattn.cli.emit import Dtype
from spattn.cli.options import (
    BatchOption,
    HeadDimOption,
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

if TYPE_CHECKING:
    from spattn.gpu.tuning import Report
    from spattn.runtime.tuned import Tuned


TITLES = {"forward": "attention", "grad_q": "gradient of q", "grad_kv": "gradients of k and v"}


def tune(
    pattern: PatternArgument,
    length: Annotated[int, typer.Option("--length", "-n", min=1, help="Queries.")] = 8192,
    kv_len: KvLenOption = None,
    q_offset: QOffsetOption = None,
    k_offset: KOffsetOption = 0,
    keys: KeysOption = None,
    heads: Annotated[int, typer.Option("--heads", min=1, help="Query heads.")] = 16,
    kv_heads: KvHeadsOption = None,
    batch: BatchOption = 1,
    head_dim: HeadDimOption = 128,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Of q, k, v and out.")] = Dtype.BF16,
    backward: Annotated[bool, typer.Option(help="Measure the kernels of the gradients too.")] = True,
    settings: SetOption = None,
    layer: LayerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure which tiles are fastest on this machine's GPU, and keep them for `spattn.compile(.., tune=True)`.

    What holds for a length holds for all up to the next power of two. Free names are given example tensors. Exit
    status 3 where there is no GPU.
    """
    parsed = read_pattern(pattern, settings, layer)
    from spattn.analysis.samples import sample_tensors
    from spattn.attend import compile as compiled
    from spattn.cache.store import default_cache
    from spattn.call.positions import standing
    from spattn.runtime.tuned import Shape, tuned

    at = standing(length, kv_len, q_offset=q_offset, k_offset=k_offset, num_keys=keys)
    shape = Shape(batch, heads, kv_heads or heads, at, head_dim, dtype.value)
    roles, cache = parsed.free_names, default_cache()
    tensors = sample_tensors(parsed.condition, roles, at.kv_len, q_len=length)
    found = tuned(compiled(parsed, backend="triton", tune=True), roles, tensors, shape, cache, backward=backward)
    if as_json:
        write_json("tune", {"pattern": str(parsed), **asdict(found)})
    else:
        write(lines(found))


def lines(found: Tuned) -> Iterator[str]:
    """A table for each group of heads, of attention and of its gradients."""
    yield f"{found.device}: microseconds of a call, all passes; measured in {found.seconds:.1f} s"
    counts = Counter(report.kind for report in found.reports)
    numbers: Counter[str] = Counter()
    for report in found.reports:
        group = f", group {numbers[report.kind]}" if counts[report.kind] > 1 else ""
        numbers[report.kind] += 1
        yield f"{TITLES[report.kind]}{group}"
        yield from _table(report)


def _table(report: Report) -> Iterator[str]:
    seen = None
    for trial in report.trials:
        if trial.number != seen:
            seen = trial.number
            yield f"{f'pass {seen}':<56}{'predicted':>12}{'measured':>14}"
        measured = "did not run" if trial.measured is None else f"{trial.measured:.1f}"
        chosen = "  chosen" if report.tiles and report.tiles[trial.number] == trial.tile else ""
        predicted = "" if trial.predicted is None else f"{trial.predicted:.1f}"
        yield f"  {trial.tile!s:<54}{predicted:>12}{measured:>14}{chosen}"
    if report.tiles is None:
        yield "nothing ran"
