"""`spattnc verify`: the stages of the road against the oracle, on this machine."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from spattn.cli.exits import Status, no, say
from spattn.cli.options import (
    BatchOption,
    JsonOption,
    KeysOption,
    KOffsetOption,
    KvLenOption,
    LayerOption,
    PatternArgument,
    QOffsetOption,
    SetOption,
)
from spattn.cli.output import write, write_json
from spattn.cli.patterns import read_pattern


class Backends(StrEnum):
    """Which backends to try."""

    ALL = "all"
    TORCH = "torch"
    TRITON = "triton"


def verify(
    pattern: PatternArgument,
    q_len: Annotated[int, typer.Option("--q-len", "-n", min=0, help="Queries.")] = 200,
    kv_len: KvLenOption = None,
    q_offset: QOffsetOption = None,
    k_offset: KOffsetOption = 0,
    keys: KeysOption = None,
    heads: Annotated[int, typer.Option("--heads", min=1, help="Query heads.")] = 2,
    batch: BatchOption = 1,
    head_dim: Annotated[int, typer.Option("--head-dim", min=1, max=256, help="Width of a head.")] = 32,
    backend: Annotated[Backends, typer.Option("--backend", help="Which to try.")] = Backends.ALL,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random tensors.")] = 0,
    settings: SetOption = None,
    layer: LayerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the pattern on random tensors and compare every stage with the oracle. Exit status 1 where one differs.

    Free names are given example tensors. Triton takes part where there is a GPU, or under TRITON_INTERPRET=1.
    """
    parsed = read_pattern(pattern, settings, layer)
    from spattn.analysis.ladder import MAX_PAIRS, Sizes, climb
    from spattn.attend import compile as compiled
    from spattn.call.positions import standing

    at = standing(q_len, kv_len, q_offset=q_offset, k_offset=k_offset, num_keys=keys)
    sizes = Sizes(at, heads, batch, head_dim)
    if at.q_len * max(at.num_keys, at.kv_len) * heads * batch > MAX_PAIRS:
        raise typer.BadParameter(f"the oracle looks at every pair; {MAX_PAIRS} are its limit")
    chosen = ("torch", "triton") if backend is Backends.ALL else (backend.value,)
    rungs = []
    for rung in climb(compiled(parsed), sizes, chosen, seed):
        rungs.append(rung)
        if not as_json:
            write(f"{_verdict(rung.passed):<10}{rung.name}: {rung.detail}")
    passed = all(rung.passed is not False for rung in rungs)
    if as_json:
        write_json("verify", {"pattern": str(parsed), "passed": passed, "rungs": [asdict(rung) for rung in rungs]})
    if not passed:
        raise no()
    _require_asked(backend, rungs[-1].passed, rungs[-1].detail)


def _require_asked(backend: Backends, passed: bool | None, detail: str) -> None:
    """A backend that was asked for by name and could not run is something missing here."""
    if backend is not Backends.ALL and passed is None:
        say(f"error E061: {backend.value} could not run: {detail}")
        raise typer.Exit(Status.MISSING)


def _verdict(passed: bool | None) -> str:
    return {True: "ok", False: "DIFFERS", None: "not here"}[passed]
