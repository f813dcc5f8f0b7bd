"""Where a character of a text stands in the file that writes the text."""

from __future__ import annotations


def place_in_scalar(file: str, begin: int, value: str, position: int) -> int:
    """The place in `file` of the character `position` of `value`.

    Quotes, the marks of YAML's blocks, indentation and the ends of folded lines are passed over. Where the file writes
    the text by escapes, the place is that of its beginning.

    Args:
        file: All of its text.
        begin: Where the text begins, its quote or mark included.
        value: The text as it is read.
        position: A character of it, or its end.
    """
    here = start = _opened(file, begin)
    for character in value[:position]:
        if character.isspace():
            here = _beyond_spaces(file, here)
            continue
        here = _beyond_spaces(file, here)
        if file[here : here + 1] != character:
            return start
        here += 1
    if position < len(value) and not value[position].isspace():
        here = _beyond_spaces(file, here)
    return here


def _opened(file: str, begin: int) -> int:
    """Behind the quotes, or the mark of a block and the rest of its line."""
    for quote in ('"""', "'''", '"', "'"):
        if file.startswith(quote, begin):
            return begin + len(quote)
    if file[begin : begin + 1] in ("|", ">"):
        return file.find("\n", begin) + 1
    return begin


def _beyond_spaces(file: str, here: int) -> int:
    while here < len(file) and file[here].isspace():
        here += 1
    return here
