"""What YAML and its like make of text without quotes, and what was meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as short
from typing import Any

from spattn.config.errors import wrong
from spattn.config.plain import plain
from spattn.pattern import Pattern


def text_at(path: tuple[str, ...], value: Any) -> str:
    """The text of a pattern or a score.

    Raises:
        ConfigError: E071, it is no text; the hint says how it came about.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Pattern):
        return str(value)
    name = ".".join(path)
    what, hint = _explained(path[-1], value)
    raise wrong(path, f"{name} is {what}, and a text is needed", hint, "E071")


def _explained(key: str, value: Any) -> tuple[str, str]:
    """What the value is, and what to write instead."""
    value = plain(value)
    if value is None:
        return "null", 'YAML reads ~, null and nothing at all as null; quote the text, "~causal", or write full'
    if isinstance(value, bool):
        return str(value).lower(), 'YAML reads on, off, yes and no as truth values; patterns are "full" and "none"'
    if isinstance(value, int | float):
        return f"the number {value}", f'quote the text, as in {key}: "last({value})"; YAML reads 1:30 as 90'
    if isinstance(value, Mapping):
        hint = 'YAML reads ": " and {..} as a mapping; arguments are given by =, as in "last(8, dilation=2)", in quotes'
        return "a mapping", hint
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        shown = short(list(value))
        return f"the list {shown}", f'a set is part of a pattern: {key}: "columns({shown})", in quotes'
    return f"a {type(value).__name__}", f'quote the text, as in {key}: "causal"'
