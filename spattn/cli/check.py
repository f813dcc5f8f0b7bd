"""`spattnc check`: is this a pattern?"""

from __future__ import annotations

from spattn.cli.exits import no, say
from spattn.cli.options import JsonOption, LayerOption, PatternArgument, SetOption
from spattn.cli.output import write, write_json
from spattn.cli.patterns import read_pattern
from spattn.errors import SpattnError


def check(
    pattern: PatternArgument, settings: SetOption = None, layer: LayerOption = None, as_json: JsonOption = False
) -> None:
    """Say whether a text is a pattern, and warn of what it hardly means. Exit status 1 if it is none."""
    try:
        parsed = read_pattern(pattern, settings, layer)
    except SpattnError as error:
        if as_json:
            write_json("check", {"valid": False, "errors": [_alone(e) for e in (error, *error.others)], "warnings": []})
        say(f"error {error}")
        raise no() from error
    from spattn.analysis.remarks import remarks

    found = remarks(parsed)
    for remark in found:
        say(remark)
    if as_json:
        warnings = [{"code": remark.code, "message": remark.message, "hint": remark.hint} for remark in found]
        write_json("check", {"valid": True, "pattern": str(parsed), "errors": [], "warnings": warnings})
    else:
        write(f"ok: {parsed}")


def _alone(error: SpattnError) -> dict[str, object]:
    """An error as JSON data, without the others."""
    return {name: value for name, value in error.to_dict().items() if name != "others"}
