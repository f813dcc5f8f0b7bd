"""The program behind both command lines: options in, tables and files out, and whether all answers were right."""

from __future__ import annotations

import sys
from pathlib import Path

from spattn.bench.options import Options
from spattn.bench.records import Result
from spattn.errors import ArgumentError


def run(options: Options) -> bool:
    """Does what is asked; False if an answer was wrong or spattn failed.

    Raises:
        SpattnError: What is asked for does not exist, or needs something that is not installed.
    """
    if options.draw is not None:
        _draw(options.draw, options.output)
        return True
    if options.listing:
        sys.stdout.write(_workloads())
        return True
    if options.plot is not None:
        from spattn.bench.pictures.picture import require

        require()
    return _measure(options)


def _measure(options: Options) -> bool:
    from spattn.bench.session import STDOUT, Session
    from spattn.bench.spoken import say
    from spattn.bench.table import table

    session = Session.of(options)
    session.save()  # a file that cannot be written is an error now, not after an hour
    try:
        session.run()
    finally:  # stopped by hand, it says what it found until then
        session.save()
        text = session.result.to_json() if options.json == STDOUT else table(session.result)
        sys.stdout.write(text)
        sys.stdout.flush()
    if options.plot is not None:
        _picture(session.result, options.plot)
    if not session.result.right:
        say("error: NOT ALL ANSWERS ARE RIGHT; what is wrong has no time above")
    return session.result.right


def _draw(source: Path, target: Path | None) -> None:
    if target is None:
        raise ArgumentError("E060", "a picture goes into a file", hint="--draw FILE.json -o FILE.png")
    _picture(Result.from_json(source.read_bytes()), target)


def _picture(result: Result, target: Path) -> None:
    from spattn.bench.pictures.picture import picture
    from spattn.files import replaced

    replaced(target, picture(result))


def _workloads() -> str:
    from spattn.bench.columns import aligned
    from spattn.bench.decode.selection import FEW
    from spattn.bench.workloads.catalogue import WORKLOADS

    found = [(one, one.pattern) for one in WORKLOADS.values()] + [(one, one.compiled) for one in FEW]
    rows = [(one.name, f"{one.batch} x {one.q_heads}/{one.kv_heads} heads", str(pattern)) for one, pattern in found]
    return aligned(rows, left=3) + "\n"
