"""`spattnc doctor`: what is installed here, and what stands in the way."""

from __future__ import annotations

from spattn.cli.exits import no
from spattn.cli.options import JsonOption
from spattn.cli.output import write, write_json


def doctor(as_json: JsonOption = False) -> None:
    """Report versions, the GPU, the cache and known pitfalls. Exit status 1 where something is broken."""
    from spattn.analysis.health import examined

    findings = examined()
    if as_json:
        rows = [{"name": f.name, "level": f.level, "detail": f.detail, "hint": f.hint} for f in findings]
        write_json("doctor", {"findings": rows})
    else:
        for found in findings:
            write(f"{found.level:<8}{found.name:<12}{found.detail}")
            if found.hint:
                write(f"{'':20}hint: {found.hint}")
    if any(found.level == "broken" for found in findings):
        raise no()
