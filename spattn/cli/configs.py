"""`spattnc check FILE`: what is wrong in a config, and where in its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from spattn.cli.exits import no, say
from spattn.cli.output import write, write_json
from spattn.errors import SpattnError, draw

if TYPE_CHECKING:
    from spattn.config.document import Document
    from spattn.config.schema import AttentionConfig

SUFFIXES = ".yaml", ".yml", ".toml", ".json"


@dataclass(frozen=True)
class Place:
    """Where in a file.

    Attributes:
        file: As the command line names it.
        key: Dotted; empty for the whole.
        line: From 1.
        column: From 1.
    """

    file: str
    key: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


def is_config(argument: str) -> bool:
    """Is it the name of a config's file? No pattern ends like one; @FILE is a file of one pattern."""
    return argument.lower().endswith(SUFFIXES) and not argument.startswith("@")


def check_config(file: str, as_json: bool) -> None:
    """Says whether the patterns of a config are patterns, and warns as of single ones; exit status 1 if one is none."""
    from spattn.config.document import Document
    from spattn.config.plain import section
    from spattn.config.schema import AttentionConfig
    from spattn.errors import ConfigError

    try:
        document = Document.read(Path(file))
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from error
    except ConfigError as error:
        _refuse([(Place(file, "", error.line or 1, error.column or 1), error)], as_json)
    try:
        config = AttentionConfig.of(document.value)
    except ConfigError as error:
        _refuse([(_place(file, document, error.path), error)], as_json)
    above = section(document.value)[0]
    errors = []
    for path, found in config.problems():
        for one in (found, *found.others):
            position = 0 if one.span is None else one.span.start
            errors.append((_place(file, document, (*above, *path), one.source, position), one))
    if errors:
        _refuse(errors, as_json)
    _accept(file, document, above, config, as_json)


def _refuse(errors: Sequence[tuple[Place, SpattnError]], as_json: bool) -> NoReturn:
    for place, error in errors:
        say(f"{place}: error {draw(error)}")
    if as_json:
        alone = [{**error.to_dict(), **asdict(place)} for place, error in errors]
        found = [{name: value for name, value in one.items() if name != "others"} for one in alone]
        write_json("check", {"valid": False, "errors": found, "warnings": []})
    raise no()


def _accept(file: str, document: Document, above: tuple[str, ...], config: AttentionConfig, as_json: bool) -> None:
    from spattn.analysis.remarks import remarks

    warnings: list[dict[str, Any]] = []
    lines = []
    for path, text in config.texts():
        parsed = config.bound(text)
        lines.append(f"ok: {'.'.join((*above, *path))}: {parsed}")
        for remark in remarks(parsed):
            place = _place(file, document, (*above, *path), text)
            say(f"{place}: {remark}")
            warnings.append({"code": remark.code, "message": remark.message, "hint": remark.hint, **asdict(place)})
    if as_json:
        write_json("check", {"valid": True, "config": config.to_dict(), "errors": [], "warnings": warnings})
    else:
        write(lines)


def _place(file: str, document: Document, path: Sequence[str], text: str | None = None, position: int = 0) -> Place:
    return Place(file, ".".join(path), *document.place(path, text, position))
