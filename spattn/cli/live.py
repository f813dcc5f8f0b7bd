"""`spattnc live`: what a later query can still need."""

from __future__ import annotations

from typing import Annotated

import typer

from spattn.cli.exits import no, say
from spattn.cli.options import JsonOption, KvHeadsOption, LayerOption, PatternArgument, SetOption
from spattn.cli.output import write, write_json
from spattn.cli.patterns import read_pattern


def live(
    pattern: PatternArgument,
    heads: Annotated[
        int | None, typer.Option("--heads", min=1, help="Query heads; any number, all together, if not given.")
    ] = None,
    kv_heads: KvHeadsOption = None,
    length: Annotated[int | None, typer.Option("--length", min=1, help="No query stands there or later.")] = None,
    new: Annotated[int, typer.Option("--new", min=1, help="Tokens that a call adds, at most.")] = 1,
    rollback: Annotated[
        int, typer.Option("--rollback", min=0, help="Tokens taken back after a call beyond its own, at most.")
    ] = 0,
    page_size: Annotated[int | None, typer.Option("--page-size", min=1, help="Keys of a page.")] = None,
    at: Annotated[int | None, typer.Option("--at", min=0, help="Count what is needed of so many tokens.")] = None,
    why: Annotated[
        int | None, typer.Option("--why", metavar="KEY", min=0, help="Why this one of --at tokens has to stay.")
    ] = None,
    settings: SetOption = None,
    layer: LayerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which keys a cache has to hold: those that a later query can need. Exit status 1 if decoding cannot do it."""
    parsed = read_pattern(pattern, settings, layer)
    if why is not None and at is None:
        raise typer.BadParameter("--why asks about a key of --at tokens: give both")
    from spattn.analysis.liveness import Question, refusal, report
    from spattn.errors import NotDecodableError

    question = Question(heads, kv_heads, length, new, rollback, page_size, at, why)
    try:
        found = report(parsed, question)
    except NotDecodableError as error:
        if as_json:
            write_json("live", refusal(parsed, error))
        say(f"error {error}")
        raise no() from error
    if as_json:
        write_json("live", found.to_dict())
    else:
        write(str(found))
