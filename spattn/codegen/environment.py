"""The one Jinja environment. A name that a template misspells is an error; text from users may not enter.

`finalize` lets through integers, truth values and `Code`, which only our own printers make: a bare string is refused,
so no pattern's text can become code. Comments go through `comment`.
"""

from __future__ import annotations

from functools import cache

import jinja2

from spattn._resources import TEMPLATE_DIR


class _Code(str):
    """Text made by a printer of this package."""

    __slots__ = ()


def code(text: str) -> str:
    """Marks text that a printer made as fit for generated source."""
    return _Code(text)


def comment(text: str) -> str:
    """One line of ASCII for a comment: whatever could end the line or the string is escaped."""
    return _Code(text.encode("unicode_escape").decode("ascii"))


def _finalize(value: object) -> object:
    if isinstance(value, _Code | bool | int | jinja2.Undefined):  # the last raises when it is printed
        return value
    raise TypeError(f"a template printed {type(value).__name__} {value!r}, which no printer made")


@cache
def environment() -> jinja2.Environment:
    """Templates of `codegen_templates`, strict about names and about what they print."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_DIR),
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  Python is written, not HTML; `finalize` is the guard
    )
