"""`spattnc check`: is this a pattern, or a config of patterns?"""

from __future__ import annotations

from typing import Annotated

import typer

from spattn.cli.configs import check_config, is_config
from spattn.cli.exits import no, say
from spattn.cli.options import JsonOption, LayerOption, SetOption
from spattn.cli.output import write, write_json
from spattn.cli.patterns import read_pattern
from spattn.errors import SpattnError

PatternOrConfig = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN|CONFIG",
        help="A pattern, - for standard input, @FILE for a file; or a config: FILE.yaml, FILE.toml, FILE.json.",
        show_default=False,
    ),
]


def check(
    pattern: PatternOrConfig, settings: SetOption = None, layer: LayerOption = None, as_json: JsonOption = False
) -> None:
    """Say whether a text is a pattern, and warn of what it hardly means. Exit status 1 if it is none.

    Of a config all patterns are read: errors are told by file, line and column.
    """
    if is_config(pattern):
        if settings or layer is not None:
            raise typer.BadParameter("a config binds names itself, and knows its layers: no --set, no --layer")
        check_config(pattern, as_json)
        return
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
