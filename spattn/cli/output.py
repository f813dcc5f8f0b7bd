"""Results: lines or one JSON object on stdout, files written whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spattn.cli.exits import closed_pipe
from spattn.files import replaced


def prepare() -> None:
    """Whatever the terminal's encoding, no character stops a result."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def can_print(characters: str) -> bool:
    """Has stdout these characters?"""
    try:
        characters.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def write(lines: str | Iterable[str]) -> None:
    """Lines on stdout."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    try:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Typer would take it for a failure
        raise SystemExit(closed_pipe()) from None


def write_json(schema: str, data: Mapping[str, Any]) -> None:
    """One object on stdout, its form named and numbered."""
    write(json.dumps({"schema": f"spattn/{schema}/1", **data}, default=_plain))


def write_result(content: str | bytes, path: Path | None) -> None:
    """A text on stdout; anything in a file."""
    if path is None or str(path) == "-":
        if isinstance(content, str):
            write(content)
        else:
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
        return
    replaced(path, content.encode() if isinstance(content, str) else content)


def _plain(value: object) -> object:
    """NumPy's numbers as Python's, everything else as text."""
    item = getattr(value, "item", None)
    return item() if item is not None else str(value)
