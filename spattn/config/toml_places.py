"""Where values stand in TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence

_KEY = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_KEYS = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_PIECE = re.compile(
    rf"""\"\"\"(?:[^\\]|\\.|\\\n)*?\"\"\" | '''(?:.|\n)*?'''
      | (?P<header>^[ \t]*\[(?P<table>[ \t]*{_KEYS}[ \t]*)\])
      | (?P<pair>(?P<keys>{_KEYS})[ \t]*=[ \t]*)
      | "(?:[^"\\\n]|\\.)*" | '[^'\n]*' | \#[^\n]*
      | (?P<open>\{{) | (?P<close>\}})""",
    re.VERBOSE | re.MULTILINE,
)


def find(text: str, path: Sequence[str]) -> int:
    """The position of the value at a path, or of the nearest above it that is there."""
    nearest, longest = 0, 0
    for keys, position in _values(text):
        if len(keys) > longest and tuple(path[: len(keys)]) == keys:
            nearest, longest = position, len(keys)
    return nearest


def _values(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Path and position of each table and of each value."""
    table: tuple[str, ...] = ()
    around: list[tuple[str, ...]] = []
    latest: tuple[str, ...] = ()
    for piece in _PIECE.finditer(text):
        if piece["header"]:
            table, around = _keys(piece["table"]), []
            yield table, piece.start("table")
        elif piece["pair"]:
            latest = (*(around[-1] if around else table), *_keys(piece["keys"]))
            yield latest, piece.end()
        elif piece["open"]:
            around.append(latest)
        elif piece["close"] and around:
            around.pop()


def _keys(written: str) -> tuple[str, ...]:
    """The names of a dotted key."""
    data = tomllib.loads(f"{written} = 0")
    names = []
    while isinstance(data, dict):
        [(name, data)] = data.items()
        names.append(name)
    return tuple(names)
