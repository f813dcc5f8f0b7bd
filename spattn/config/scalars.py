"""Where a character of a text stands in the file that writes the text."""

from __future__ import annotations

import re

_SPACES = re.compile(r"\s*")
_ESCAPED_SPACES = re.compile(r"(?:\s|\\[ntr \n])*")


def place_in_scalar(file: str, begin: int, value: str, position: int) -> int:
    """The place in `file` of the character `position` of `value`.

    Quotes, the marks of YAML's blocks, indentation and the ends of folded lines are passed over, and escaped spaces.
    Where the file writes the text by other escapes, the place is that of its beginning.

    Args:
        file: All of its text.
        begin: Where the text begins, its quote or mark included.
        value: The text as it is read.
        position: A character of it, or its end.
    """
    spaces = _ESCAPED_SPACES if file.startswith('"', begin) else _SPACES
    here = start = _opened(file, begin)
    for character in value[:position]:
        here = _beyond(spaces, file, here)
        if character.isspace():
            continue
        if file[here : here + 1] != character:
            return start
        here += 1
    if position < len(value) and not value[position].isspace():
        here = _beyond(spaces, file, here)
    return here


def _opened(file: str, begin: int) -> int:
    """Behind the quotes, or the mark of a block and the rest of its line."""
    for quote in ('"""', "'''", '"', "'"):
        if file.startswith(quote, begin):
            return begin + len(quote)
    if file.startswith(("|", ">"), begin):
        return file.find("\n", begin) + 1
    return begin


def _beyond(spaces: re.Pattern[str], file: str, here: int) -> int:
    found = spaces.match(file, here)
    return here if found is None else found.end()
