"""The pattern of a command line: text, standard input or a file, with names bound."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

if TYPE_CHECKING:
    from spattn.pattern import Pattern


def read_pattern(argument: str, settings: list[str] | None = None, layer: int | None = None) -> Pattern:
    """The pattern that an argument names.

    Raises:
        PatternError: The text is no pattern.
        BindError: A binding does not fit.
    """
    from spattn.pattern import parse

    return parse(pattern_text(argument), layer, **bindings(settings))


def pattern_text(argument: str) -> str:
    """The text itself.

    Raises:
        PatternError: E091, standard input or the file is longer than a pattern may be.
    """
    if argument == "-":
        return _bounded(sys.stdin)
    if argument.startswith("@"):
        return _contents(Path(argument[1:]))
    return argument


def _contents(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return _bounded(file)
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error


def _bounded(source: TextIO) -> str:
    """All of a source that is no longer than a pattern; of a longer one no more is read."""
    from spattn.errors import PatternError
    from spattn.frontend.limits import MAX_CHARACTERS

    text = source.read(MAX_CHARACTERS + 1)
    if len(text) > MAX_CHARACTERS:
        message = f"the pattern has more than {MAX_CHARACTERS} characters, which is the limit"
        raise PatternError("E091", message, hint="give long lists of tokens as a tensor")
    return text.strip()


def bindings(settings: list[str] | None) -> dict[str, int]:
    """`["w=128"]` as names and integers."""
    found: dict[str, int] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        try:
            found[name.strip()] = int(value)
        except ValueError:
            raise typer.BadParameter(f"{setting!r} binds no integer; write --set {name or 'w'}=128") from None
        if not equals or not name.strip().isidentifier():
            raise typer.BadParameter(f"{setting!r} names nothing; write --set w=128")
    return found
